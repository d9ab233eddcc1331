"""Output that may break: a job is its training, not what it says meanwhile."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class _Kept:
    """A text stream whose errors are dropped, with all that follows: a closed pipe, a full disk, a lost terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError):
            os.dup2(null, self._stream.fileno())  # what is still buffered goes there, at the interpreter's exit too
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def kept_output() -> Iterator[None]:
    """Standard output and error that nothing breaks, and that escape what their encoding lacks."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if callable(reconfigure := getattr(stream, "reconfigure", None)):
            reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (cast(TextIO, _Kept(stream)) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
