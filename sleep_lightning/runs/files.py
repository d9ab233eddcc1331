"""Files that other processes read, and that a crash or a full disk must leave whole."""

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from sleep_lightning.runs.damage import UnreadableFile, read_json
from sleep_lightning.runs.space import naming, with_space

BLOCK = 2**16
"""Bytes read at once from the end of a file."""


def write_json(path: Path, content: dict[str, Any], patience: float | None = None) -> None:
    """Write by rename: a reader sees the old file or the new one, never a part of it."""
    write_text(path, json.dumps(content, indent=2) + "\n", patience)


def write_text(path: Path, text: str, patience: float | None = None) -> None:
    """Write by fsync and rename, like ``write_json``: a crash or a full disk leaves the file before intact."""
    write_atomically(path, lambda file: file.write(text.encode()), patience)


def append_text(path: Path, text: str) -> None:
    """Append to an existing file, and fsync; on a full disk as ``write_atomically`` does. Nothing is left in part.

    Raises:
        OSError: it is missing, or cannot be written.
    """
    content = text.encode()
    with_space(path, lambda: _append(path, content), lambda: len(content))


def _append(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        append_whole(file, content, sync=True)
    finally:
        os.close(file)


def append_whole(file: int, content: bytes, *, sync: bool = False) -> None:
    """Append to an open file all of it or nothing.

    Args:
        file: its descriptor.
        content: what is appended.
        sync: have it on disk, too.

    Raises:
        OSError: it could not be written, for want of space maybe.
    """
    before = os.fstat(file).st_size
    try:
        if os.write(file, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if sync:
            os.fsync(file)
    except OSError:
        os.ftruncate(file, before)
        raise


def end_of_lines(file: IO[bytes]) -> int:
    """Where the last whole line of a file ends, read from its end: what follows was cut off by a kill."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - BLOCK)
        file.seek(start)
        if (at := file.read(position - start).rfind(b"\n")) >= 0:
            return start + at + 1
        position = start
    return 0


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], patience: float | None = None) -> None:
    """Have ``write`` fill a file beside the target, which it replaces once it is on disk; a device is written to.

    On a full disk ``write`` is called again until there is space, for ``patience`` seconds (None:
    ``space.PATIENCE``).

    Raises:
        DiskFull: there was none; the file before is intact.
    """
    if path.exists() and not path.is_file():
        with naming(path), path.open("wb") as file:
            write(file)
        return
    with_space(path, lambda: _write(path, write), lambda: _size(write), patience)


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    partial = _partial(path)
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _size(write: Callable[[IO[bytes]], object]) -> int:
    """Bytes that it writes."""
    counter = _Counter()
    with io.BufferedWriter(counter) as file:
        write(file)
    return counter.size


class _Counter(io.RawIOBase):
    """Counts what is written, and drops it."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.size += len(data)
        return len(data)


def check_writable(path: Path) -> None:
    """Raises OSError where ``write_atomically`` would, a full disk aside."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return
    with NamedTemporaryFile(dir=path.parent, prefix=_partial(path).name):
        pass


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


class JsonFile:
    """A JSON object that another process rewrites by rename; parsed again only if the file has changed."""

    def __init__(self, path: Path, like: dict[str, Any], remedy: str) -> None:
        self._path, self._like, self._remedy = path, like, remedy
        self._seen: tuple[int, int, int] | None = None
        self._content: dict[str, Any] | None = None

    def read(self) -> dict[str, Any] | None:
        """Its content (shared: not to be changed); None if there is no such file. Raises DamagedFile."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._content, self._seen = read_json(self._path, self._like, self._remedy), seen
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                raise UnreadableFile(self._path, error) from error
            self._content = self._seen = None
        return self._content
