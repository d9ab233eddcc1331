"""Output that may break, and that holds no secret: a job is its training, not what it says meanwhile."""

import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, TextIO, cast

from sleep_lightning.redaction import redact, remember_environment

ERASE = "\x1b[2K"
"""What a terminal erases its line by."""


class _Kept:
    """A text stream without secrets, whose errors are dropped, with all that follows: a closed pipe, a full disk, a
    lost terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(redact(text))
        except OSError:
            self._drop()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

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


def _open_missing() -> None:
    """Standard streams that were closed before the program began lead nowhere: with ``None`` in their place nothing
    could be printed, and a file of ours would get the number to which libraries and children print."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
        setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - as long as the process lives


def _print_redacted(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    print(redact("".join(traceback.format_exception(kind, error, where))), end="", file=sys.stderr)


@contextmanager
def loading(text: str) -> Iterator[None]:
    """Shows a text on a terminal at once, until the block is left: libraries take seconds to load."""
    terminal = sys.stderr.isatty()
    if terminal:
        print(text, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if terminal:
            print(f"\r{ERASE}", end="", file=sys.stderr, flush=True)


@contextmanager
def kept_output() -> Iterator[None]:
    """Standard output and error that nothing breaks, without secrets, and that escape what their encoding lacks.

    A traceback that follows has no secrets either.
    """
    remember_environment()
    _open_missing()
    sys.excepthook = _print_redacted
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
