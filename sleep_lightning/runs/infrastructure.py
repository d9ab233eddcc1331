"""Failures of the machine, told from a run's own in one place: by their errors and, from outside, by exit codes.

What they have ended can be resumed and may then succeed; a run that diverged would diverge again.
"""

import errno
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from sleep_lightning.redaction import one_line
from sleep_lightning.runs.backoff import Backoff
from sleep_lightning.runs.signals import StopReason

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk without space."""
PASSING = (*FULL, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""Errors of a disk that may pass: it is full, or its server is away."""
LOST_RANK = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe")
"""Parts of torch.distributed's errors when another rank has ended."""
TRIES = 10
"""Starts in a row, without progress, after which a run that finds no memory or loses its node is put aside."""
DIVERGED = os.EX_DATAERR
"""Exit code of ``fit`` when training has diverged."""
_AWAY = (ConnectionRefusedError, ConnectionResetError, socket.gaierror, TimeoutError)
_SQLITE_FULL = 13
"""Of ``sqlite3``, which is not imported for it."""
_NO_MEMORY = ("OutOfMemoryError", "MemoryError")
"""Names of exceptions: torch's and Ray's packages are not imported for them."""


class Cause(IntEnum):
    """What was missing. The value is the exit code of a command that it has ended, as in sysexits.h."""

    NODE = os.EX_NOHOST
    SERVICE = os.EX_UNAVAILABLE
    MEMORY = os.EX_OSERR
    DISK = os.EX_IOERR

    @property
    def passes(self) -> bool:
        """Whether it is never the fault of what is trained, so that waiting for it must end."""
        return self in (Cause.DISK, Cause.SERVICE)


@dataclass(frozen=True)
class Ended:
    """How a run has ended without a result: on one line, and what the machine lacked if that was it."""

    reason: str
    cause: Cause | None = None
    diverged: bool = False

    def __str__(self) -> str:
        return self.reason

    @classmethod
    def by(cls, error: Exception) -> "Ended":
        """A run that could not be started. Raises the error unless the machine was the cause."""
        if (cause := cause_of(error)) is None:
            raise error
        return cls(one_line(error), cause)


def cause_of(error: BaseException) -> Cause | None:
    """What the machine lacked, by an error or what it was raised from; None: it was something else."""
    return next((cause for one in _chain(error) if (cause := _cause(one)) is not None), None)


def disk_error(error: BaseException) -> OSError | None:
    """The error of a disk that an error was raised from, or that it is."""
    return next((one for one in _chain(error) if isinstance(one, OSError) and one.errno in PASSING), None)


def cause_of_exit(code: int | None) -> Cause | None:
    """What the machine lacked, by the exit code of ``fit``.

    Args:
        code: minus a signal's number, or 128 plus it, for a process that it ended; None: nobody saw its end.
    """
    if code is None or (code in set(StopReason) and code != StopReason.TIME_LIMIT) or -code in _STOPS:
        return Cause.NODE  # ended from outside
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return Cause.MEMORY
    return Cause(code) if code in set(Cause) else None


_STOPS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _cause(error: BaseException) -> Cause | None:
    number, text = getattr(error, "errno", None), str(error)
    if isinstance(error, _AWAY):
        return Cause.SERVICE
    if isinstance(error, OSError) and number in PASSING:
        return Cause.DISK
    if getattr(error, "sqlite_errorcode", None) == _SQLITE_FULL:
        return Cause.DISK
    if type(error).__name__ in _NO_MEMORY or number == errno.ENOMEM or "can't allocate memory" in text:
        return Cause.MEMORY
    if isinstance(error, RuntimeError) and any(part in text for part in LOST_RANK):
        return Cause.NODE
    return None


class Retry:
    """When to start a run again that the machine has ended: after pauses that double, as often as its cause allows.

    Attributes:
        at: when, on the monotonic clock; None: it need not be started.
    """

    def __init__(self) -> None:
        self.at: float | None = None
        self._tries, self._pauses = 0, Backoff()

    def after(self, cause: Cause) -> float | None:
        """Seconds until it is to be started again; None: it was started often enough."""
        if self._tries >= TRIES and not cause.passes:
            return None
        seconds = self._pauses.next()
        self._tries += 1
        self.at = time.monotonic() + seconds
        return seconds

    @property
    def due(self) -> bool:
        """Whether it may be started now."""
        return self.at is None or time.monotonic() >= self.at
