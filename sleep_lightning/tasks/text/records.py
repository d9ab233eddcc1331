"""Records of a file, one after the other and one at a time: JSON lines, a JSON array, or Parquet.

JSON lines are read where they lie, so that a file may be larger than the memory; Parquet through the library datasets,
which maps it.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

_BOM = b"\xef\xbb\xbf"


class Place(NamedTuple):
    """Where a record is: for the file, and for people (a line or row, from 1)."""

    where: int
    number: int


class Records(ABC):
    """The records of a file.

    Args:
        path: of the file.
        key: the key of the configuration that named it, for messages.
    """

    unit = "row"

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    @abstractmethod
    def scan(self) -> Iterator[tuple[Place, Any]]:
        """All records in order.

        Raises:
            ValueError: one cannot be read; the sentence names the place.
        """

    @abstractmethod
    def read(self, place: Place) -> Any:
        """One record."""

    def origin(self, place: Place) -> str:
        """For messages."""
        return f"{self.key}={self.path}, {self.unit} {place.number}"


class JSONLines(Records):
    """An object a line; empty lines, a byte order mark and any line ends are fine."""

    unit = "line"

    def scan(self) -> Iterator[tuple[Place, Any]]:
        """See ``Records``."""
        where = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                place = Place(where, number)
                where += len(line)
                if line.removeprefix(_BOM).strip():
                    yield place, self._parse(line, place)

    def read(self, place: Place) -> Any:
        """See ``Records``."""
        with self.path.open("rb") as file:
            file.seek(place.where)
            return self._parse(file.readline(), place)

    def _parse(self, line: bytes, place: Place) -> Any:
        try:
            return json.loads(line.removeprefix(_BOM))
        except ValueError as error:  # JSON and UTF-8 errors are ValueErrors
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise ValueError(f"{self.origin(place)}: {reason}; fix or delete that line") from error


class JSONArray(Records):
    """A list of objects, read as a whole."""

    unit = "item"

    def __init__(self, path: Path, key: str) -> None:
        super().__init__(path, key)
        try:
            self._items: list[Any] = json.loads(path.read_bytes().removeprefix(_BOM))
        except ValueError as error:
            raise ValueError(f"{key}={path} is no JSON array ({error}); fix it, or write an object a line") from error

    def scan(self) -> Iterator[tuple[Place, Any]]:
        """See ``Records``."""
        return ((Place(i, i + 1), item) for i, item in enumerate(self._items))

    def read(self, place: Place) -> Any:
        """See ``Records``."""
        return self._items[place.where]


class Parquet(Records):
    """Rows of a Parquet file."""

    def __init__(self, path: Path, key: str) -> None:
        super().__init__(path, key)
        try:
            datasets = import_module("datasets")
        except ImportError as error:
            raise ValueError(
                f"{key}={path} needs datasets: pip install 'sleep-lightning[text]'; or write JSONL"
            ) from error
        datasets.disable_progress_bars()
        logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it says what is raised as well
        try:
            self._rows: Any = datasets.Dataset.from_parquet(str(path))
        except Exception as error:  # datasets raises what pyarrow and its own builders raise
            reason = str(error.__cause__ or error).strip().partition("\n")[0].rstrip(".")
            raise ValueError(f"{key}={path} cannot be read as Parquet ({reason}); write it again") from error

    def scan(self) -> Iterator[tuple[Place, Any]]:
        """See ``Records``."""
        return ((Place(i, i + 1), row) for i, row in enumerate(self._rows))

    def read(self, place: Place) -> Any:
        """See ``Records``."""
        return self._rows[place.where]


def open_records(path: str, key: str) -> Records:
    """The records of a file, by its name and its first character.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    file = Path(path)
    try:
        with file.open("rb") as opened:
            start = opened.read(1 << 12).removeprefix(_BOM).lstrip()
    except OSError as error:
        raise ValueError(f"{key}={path}: {error.strerror}; give a file of JSON lines or Parquet") from error
    if start.startswith(b"PAR1") or file.suffix == ".parquet":
        return Parquet(file, key)
    return JSONArray(file, key) if start.startswith(b"[") else JSONLines(file, key)
