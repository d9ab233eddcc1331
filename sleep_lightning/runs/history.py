"""A run's validations on disk: a line of JSON for each, appended, and read from where the last reading ended.

A run begun by an earlier version has all of them in one ``history.json``, which is read until the run is resumed.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from sleep_lightning.runs.damage import NUMBER, DamagedFile, UnreadableFile, check_content
from sleep_lightning.runs.files import JsonFile, append_text, write_text

Row = Mapping[str, float]
ROW = dict.fromkeys(("step", "exact_match", "cost/train_flops"), NUMBER)
"""What is read of a validation."""
EARLIER = ".json"
"""Suffix of the file of earlier versions: an object with a list, ``history``."""


def write_history(path: Path, rows: Iterable[Row]) -> None:
    """Write all validations by rename; without any, no file is left. An earlier version's file goes."""
    if text := "".join(map(_line, rows)):
        write_text(path, text)
    else:
        path.unlink(missing_ok=True)
    path.with_suffix(EARLIER).unlink(missing_ok=True)


def append_to_history(path: Path, row: Row) -> None:
    """Append a validation to a file that ends with a whole line."""
    append_text(path, _line(row))


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


class HistoryFile:
    """Reads the validations of a run that another process may train: of what was appended, each byte once."""

    def __init__(self, path: Path, remedy: str) -> None:
        self._path, self._remedy = path, remedy
        self._earlier = JsonFile(path.with_suffix(EARLIER), {"history": [ROW]}, remedy)
        self._seen: tuple[int, int, int] | None = None
        self._rows: list[dict[str, float]] = []
        self._end, self._last = 0, b""

    def read(self) -> list[dict[str, float]]:
        """The validations so far (shared: not to be changed). Raises DamagedFile.

        What follows the last newline is being written, or was cut off by a kill.
        """
        try:
            status = self._path.stat()
            if (seen := (status.st_mtime_ns, status.st_size, status.st_ino)) != self._seen:
                with self._path.open("rb") as file:
                    self._read_on(file)
                self._seen = seen
        except FileNotFoundError as error:
            if self._path.is_symlink():
                raise UnreadableFile(self._path, error) from error
            self._seen = None
            self._begin()
            content = self._earlier.read()
            return [] if content is None else content["history"]
        except OSError as error:
            raise UnreadableFile(self._path, error) from error
        return self._rows

    def _begin(self) -> None:
        self._rows, self._end, self._last = [], 0, b""

    def _read_on(self, file: IO[bytes]) -> None:
        if os.pread(file.fileno(), len(self._last), self._end - len(self._last)) != self._last:
            self._begin()  # a resume has written it anew
        file.seek(self._end)
        lines = file.read().split(b"\n")
        if not self._rows and len(lines) == 1:
            raise DamagedFile(self._path, "it holds no whole line" if lines[0] else "it is empty", self._remedy)
        for line in lines[:-1]:
            row = self._parsed(line, len(self._rows) + 1)
            self._rows.append(row)
            self._end, self._last = self._end + len(line) + 1, line + b"\n"

    def _parsed(self, line: bytes, number: int) -> dict[str, float]:
        try:
            row: dict[str, float] = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DamagedFile(self._path, f"line {number}: {error or type(error).__name__}", self._remedy) from error
        check_content(self._path, row, ROW, self._remedy)
        return row
