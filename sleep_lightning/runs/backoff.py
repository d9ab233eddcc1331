"""Pauses between attempts, each twice as long as the one before."""

import math
import time

FIRST_SECONDS, LONGEST_SECONDS = 0.5, 30.0
"""Of a pause, by default."""


class Backoff:
    """Pauses from now on.

    Args:
        patience: seconds from now on after which it is over.
        first: seconds of the first pause; None: ``FIRST_SECONDS``.
        longest: seconds of a pause at most; None: ``LONGEST_SECONDS``.
    """

    def __init__(self, patience: float = math.inf, first: float | None = None, longest: float | None = None) -> None:
        self._began, self._patience = time.monotonic(), patience
        self._seconds = FIRST_SECONDS if first is None else first
        self._longest = LONGEST_SECONDS if longest is None else longest

    @property
    def waited(self) -> float:
        """Seconds since the first attempt."""
        return time.monotonic() - self._began

    @property
    def over(self) -> bool:
        """Whether there is to be no further attempt."""
        return self.waited >= self._patience

    def next(self) -> float:
        """Seconds until the next attempt, which is the last one at the end of ``patience``."""
        seconds = max(0.0, min(self._seconds, self._longest, self._patience - self.waited))
        self._seconds = min(2 * self._seconds, self._longest)
        return seconds
