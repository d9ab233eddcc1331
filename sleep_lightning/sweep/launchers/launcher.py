"""The four verbs in which a supervisor speaks to whatever trains its runs."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from sleep_lightning.runs.process import FitProcess

LOOK_SECONDS = 0.05
"""Between two looks at runs that were asked to stop."""


class Launcher(ABC):
    """Trains runs somewhere. A run is known by its directory, so that a new supervisor finds what a dead one began.

    Attributes:
        events: what happened, a line each, for the supervisor to take.
    """

    def __init__(self) -> None:
        self.events: list[str] = []

    @abstractmethod
    def submit(self, run: FitProcess) -> None:
        """Have it begun, or gone on with from its checkpoint; one that is at work already is adopted."""

    @abstractmethod
    def poll(self, run: FitProcess) -> str | None:
        """None while a submitted run waits or is at work; once it has ended, how, in a line.

        Whether it ended well is told by ``run.summary`` alone.
        """

    @abstractmethod
    def signal(self, run: FitProcess) -> None:
        """Ask it to save and stop."""

    @abstractmethod
    def cancel(self, run: FitProcess) -> None:
        """End it at once."""

    def stop(self, runs: Sequence[FitProcess], seconds: float = 60.0) -> None:
        """Until all have ended: asked to save first, cancelled if they have not gone after so many seconds."""
        for run in runs:
            self.signal(run)
        left = self._wait(runs, seconds)
        for run in left:
            self.cancel(run)
        self._wait(left, seconds)

    def close(self) -> None:
        """The sweep is at its end: nothing more will be submitted."""
        return

    def _wait(self, runs: Sequence[FitProcess], seconds: float) -> list[FitProcess]:
        """Those that are still there after so many seconds."""
        left, deadline = list(runs), time.monotonic() + seconds
        while left := [run for run in left if self.poll(run) is None]:
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_SECONDS)
        return left
