"""What names of files mean here and now, for caches of what was read from them."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

Stamp = tuple[tuple[str, int], ...]


def stamp(paths: Iterable[str | Path]) -> Stamp:
    """Absolute path, and time of the last change in ns, of every path that exists and of the files in a directory.

    A relative name means another file after ``os.chdir``, and a file that was saved again holds something else. What
    cannot be looked at is left out: whoever reads it says why.
    """
    return tuple(each for path in paths if str(path) for each in _of(os.path.abspath(path)))


def _of(path: str) -> Iterator[tuple[str, int]]:
    with suppress(OSError, ValueError):
        yield path, os.stat(path).st_mtime_ns
        if os.path.isdir(path):
            yield from sorted((entry.path, entry.stat().st_mtime_ns) for entry in os.scandir(path))
