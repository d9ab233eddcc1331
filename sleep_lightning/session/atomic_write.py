"""A file that is the old one or the new one, whatever kills its writer."""

import os
from pathlib import Path

from sleep_lightning.machine.locks import open_private, take

PATIENCE = 60.0
"""Seconds to wait for another writer of the same file."""


def partial_of(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.partial")


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file, for its owner alone, once the new content is on disk.

    It is written beside the target. What a killed writer leaves there is written over by the next.

    Raises:
        OSError: it cannot be written; the file before is intact.
    """
    partial = partial_of(path)
    file = _locked(partial)
    try:
        os.ftruncate(file, 0)
        left = memoryview(content)
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    _sync_directory(path.parent)


def _locked(partial: Path) -> int:
    """The file beside the target, ours until it is closed."""
    while True:
        file = open_private(partial)
        if not take(file, seconds=PATIENCE):
            os.close(file)
            raise TimeoutError(f"{partial} is being written by another process; remove it if there is none")
        try:
            if os.path.samestat(os.fstat(file), os.stat(partial)):
                return file
        except FileNotFoundError:  # whoever held the lock has put it in place
            pass
        os.close(file)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
