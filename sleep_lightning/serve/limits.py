"""What a client may ask for at most."""

from dataclasses import dataclass, fields, replace
from typing import Self


class LimitReached(ValueError):
    """A limit of the server is reached; it says which one."""


@dataclass(frozen=True)
class Limits:
    """Most of everything; ``--limit NAME=NUMBER`` sets one."""

    body_bytes: int = 2**20
    """Bytes of a request."""
    state_bytes: int = 2**26
    """Bytes of a state that is imported."""
    sessions: int = 64
    """Sessions of an owner."""
    tokens: int = 2**16
    """Tokens that a request has read."""
    new_tokens: int = 1024
    """Tokens of an answer."""
    passes: int = 16
    """Passes over a window."""
    windows: int = 2**14
    """Windows that a session closes until it is reset: each is a line of its provenance."""
    waiting: int = 16
    """Requests of an owner at a time, queued sleeps among them."""

    @classmethod
    def parsed(cls, given: list[str]) -> Self:
        """From ``NAME=NUMBER`` texts. Raises ValueError for another name or number."""
        known, values = [f.name for f in fields(cls)], {}
        for one in given:
            name, _, number = one.partition("=")
            if name not in known or not number.isascii() or not number.isdecimal() or not 1 <= int(number) <= 2**48:
                raise ValueError(f"--limit {one} must be NAME=NUMBER, a number from 1, with one of {', '.join(known)}")
            values[name] = int(number)
        return cls(**values)

    def reaching(self, n_passes: int, given: list[str]) -> Self:
        """With the N of the sessions, where the limit of passes is the default.

        Args:
            n_passes: N.
            given: as of ``parsed``.

        Raises:
            ValueError: a smaller limit was given.
        """
        if n_passes > self.passes and any(one.startswith("passes=") for one in given):
            raise ValueError(
                f"--limit passes={self.passes} is below sleep.n_passes={n_passes}, the passes of every sleep; raise "
                f"it, or give sleep.n_passes={self.passes}"
            )
        return replace(self, passes=max(self.passes, n_passes))
