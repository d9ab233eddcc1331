"""A copy of what is printed, in a file: as a terminal shows it in the end, without bars that were drawn over."""

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO, cast

from sleep_lightning.cli.streams import ERASE
from sleep_lightning.redaction import redact

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""ANSI control sequences."""


class _Log:
    """A file that takes whole lines. Errors end it: a job is its training, not what it says meanwhile."""

    def __init__(self, file: IO[str]) -> None:
        self._file: IO[str] | None = file

    def add(self, line: str) -> None:
        line = _CONTROL.sub("", line.rpartition(ERASE)[2].rpartition("\r")[2])
        try:
            if self._file is not None:
                self._file.write(redact(line) + "\n")
                self._file.flush()
        except OSError:
            self._file = None


class _Copied:
    """A text stream whose lines go to a log as well."""

    def __init__(self, stream: TextIO, log: _Log) -> None:
        self._stream, self._log, self._line = stream, log, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._log.add(line.removesuffix("\r"))
        self._line = self._line[max(self._line.rfind(ERASE), 0) :]  # a bar is drawn again and again
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def copied_output(path: Path | None) -> Iterator[None]:
    """Append what is printed meanwhile, and the traceback of an error that leaves the block, to a file.

    Args:
        path: of the file; None: nothing is copied.
    """
    try:
        file = None if path is None else path.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError:
        file = None
    if file is None:
        yield
        return
    before, log = (sys.stdout, sys.stderr), _Log(file)
    sys.stdout, sys.stderr = (cast(TextIO, _Copied(stream, log)) for stream in before)
    try:
        yield
    except Exception:
        for line in traceback.format_exc().splitlines():
            log.add(line)
        raise
    finally:
        sys.stdout, sys.stderr = before
        with suppress(OSError):  # what could not be written is tried again
            file.close()
