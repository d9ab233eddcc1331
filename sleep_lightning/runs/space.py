"""Full disks: one sentence with path, need and free space, after waiting a while for some to be freed."""

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sleep_lightning.formatting import in_bytes
from sleep_lightning.runs.backoff import Backoff
from sleep_lightning.runs.infrastructure import FULL, Cause, cause_of, disk_error

PATIENCE = 30.0
"""Seconds that a write waits for space before it fails: for longer, a run is better ended and resumed."""


class DiskFull(OSError):
    """There is no space for a file.

    Args:
        path: of the file.
        error: of the system.
        need: bytes; None: unknown, a block or an entry of a folder.
    """

    def __init__(self, path: str | Path, error: OSError, need: int | None = None) -> None:
        number = error.errno or errno.ENOSPC
        said = f"{os.strerror(number)} (needs {'a block' if need is None else in_bytes(need)}, {_free(Path(path))})"
        super().__init__(number, said, str(path))

    @classmethod
    def of(cls, error: BaseException) -> "DiskFull | None":
        """The full disk behind an error; None if that is not its cause."""
        found = disk_error(error)
        if found is None or found.errno not in FULL or isinstance(found, cls):
            return found if isinstance(found, cls) else None
        return cls(found.filename or "a file", found)

    @classmethod
    def of_sqlite(cls, file: str | Path, error: BaseException) -> "DiskFull | None":
        """The same for an error of SQLite, which names no file."""
        return cls(file, OSError(errno.ENOSPC, "")) if cause_of(error) is Cause.DISK else None

    @property
    def what(self) -> str:
        """Without what to do."""
        return f"{self.filename} cannot be written: {self.strerror}"

    def __str__(self) -> str:
        return f"{self.what}; free some space and repeat the command: what was written before is whole"


def refusal(error: BaseException) -> tuple[str, int]:
    """The sentence and the exit code of a command that is refused: 2, or that of a full disk if that is why."""
    if cause_of(error) is not Cause.DISK:
        return str(error), 2
    return str(DiskFull.of(error) or error), int(Cause.DISK)


@contextmanager
def naming(path: Path, need: int | None = None) -> Iterator[None]:
    """Around what writes to a file: raises DiskFull, which names it, in the place of errors of a full disk."""
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if (full := _full(error)) is None:
            raise
        raise DiskFull(path, full, need) from error


def with_space(path: Path, write: Callable[[], None], need: Callable[[], int], patience: float | None = None) -> None:
    """Call ``write``, which can be repeated, until there is space, with a line on stderr.

    Args:
        path: what is written.
        write: writes it, and leaves nothing behind if that fails.
        need: its size in bytes, asked for once there is no space.
        patience: seconds to wait; None: ``PATIENCE``.

    Raises:
        DiskFull: there was none.
    """
    patience = PATIENCE if patience is None else patience
    pauses, size = Backoff(patience), None
    while True:
        try:
            return write()
        except Exception as error:
            if (full := _full(error)) is None:
                if isinstance(error, OSError):
                    error.filename = str(path)  # what writes may name none, or a part of it
                raise
            first, size = size is None, need() if size is None else size
            failed = DiskFull(path, full, size)
            if pauses.over:
                raise failed from error
        if first:
            text = f"{path} cannot be written yet: {failed.strerror}; waiting {patience:.0f} s for space"
            print(text, file=sys.stderr, flush=True)
        time.sleep(pauses.next())


def _full(error: BaseException) -> OSError | None:
    """The error of a full disk behind another: torch, which closes its archive all the same, raises one of its own."""
    one: BaseException | None = error
    while one is not None:
        if isinstance(one, OSError) and one.errno in FULL:
            return one
        one = one.__cause__ or one.__context__
    return None


def _existing(path: Path) -> Path:
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())


def _free(path: Path) -> str:
    try:
        there = _existing(path)
        status = os.statvfs(there)
    except OSError:
        return "free space unknown"
    inodes = ", no inode" if status.f_files and not status.f_favail else ""
    folder = there if there.is_dir() else there.parent
    return f"{in_bytes(status.f_bavail * status.f_frsize)} free{inodes} in {folder}"
