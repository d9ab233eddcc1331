"""Locks in files of ours: the kernel releases them however their process ends, and nobody else can open them."""

import errno
import fcntl
import os
import time
import warnings
from pathlib import Path
from typing import IO

LOOK_SECONDS = 2.0
"""How long one waits for those that only look who holds a lock."""
_WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_said: set[int] = set()


def open_lock(path: Path) -> IO[str]:
    """The file of a lock, created for its owner alone: another user who opened it could hold it for ever.

    Raises:
        OSError: it cannot be opened.
    """
    return os.fdopen(open_private(path), "a+", errors="replace")


def open_private(path: Path) -> int:
    """A file to read and append to, for its owner alone also where it was there before. Raises OSError."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if os.fstat(file).st_uid == os.geteuid():
        os.fchmod(file, 0o600)
    return file


def take(file: IO[str] | int, *, shared: bool = False, seconds: float = 0.0) -> bool:
    """Lock an open file until it is closed. Returns whether that was possible within the time.

    Where the file system has no locks (some mounts of Lustre and NFS), warns and returns True: nothing then keeps two
    processes apart.
    """
    how, deadline = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, how)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            _warn_without(file, error)
            return True
        else:
            return True


def _warn_without(file: IO[str] | int, error: OSError) -> None:
    number = file if isinstance(file, int) else file.fileno()
    if (device := os.fstat(number).st_dev) not in _said:
        _said.add(device)
        text = f"file locks do not work here ({error.strerror}): start no second process on the same folder"
        warnings.warn(f"{os.readlink(f'/proc/self/fd/{number}')}: {text}", stacklevel=4)
