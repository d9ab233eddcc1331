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
_OTHER_KINDS = {
    b"\x1f\x8b": "compressed (gzip); decompress it",
    b"BZh": "compressed (bzip2); decompress it",
    b"\xfd7zXZ": "compressed (xz); decompress it",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); decompress it",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\xff\xfe": "UTF-16 or UTF-32; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
}
"""What a file is, and what to do, by its first bytes."""


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
        # nothing of a file whose first line is no JSON has been read: it may be another format
        fix = "fix or delete that line" if place.where else "fix it, or write one JSON object a line"
        try:
            return _parsed(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.origin(place)}: {error.msg}; {fix}") from error
        except UnicodeDecodeError as error:
            byte = f"byte {error.start + 1} (0x{error.object[error.start]:02x})"
            raise ValueError(f"{self.origin(place)}: {byte} is not UTF-8; save the file as UTF-8") from error
        except ValueError as error:
            raise ValueError(f"{self.origin(place)}: {error}; {fix}") from error


def _parsed(content: bytes) -> Any:
    """JSON in UTF-8. Bytes that are another encoding are refused, which json would guess."""
    try:
        return json.loads(content.removeprefix(_BOM).decode())
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error


class JSONArray(Records):
    """A list of objects, read as a whole."""

    unit = "item"

    def __init__(self, path: Path, key: str) -> None:
        super().__init__(path, key)
        try:
            self._items: list[Any] = _parsed(path.read_bytes())
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
            if _has_no_rows(path):
                self._rows = []
                return
            reason = str(error.__cause__ or error).strip().partition("\n")[0].rstrip(".")
            raise ValueError(f"{key}={path} cannot be read as Parquet ({reason}); write it again") from error

    def scan(self) -> Iterator[tuple[Place, Any]]:
        """See ``Records``."""
        return ((Place(i, i + 1), row) for i, row in enumerate(self._rows))

    def read(self, place: Place) -> Any:
        """See ``Records``."""
        return self._rows[place.where]


def _has_no_rows(path: Path) -> bool:
    """Whether it is a Parquet file without rows, of which datasets says that its batches have no size."""
    try:
        return bool(import_module("pyarrow.parquet").read_metadata(str(path)).num_rows == 0)
    except Exception:  # what made datasets fail makes pyarrow fail
        return False


def open_records(path: str, key: str) -> Records:
    """The records of a file, by its name and its first character.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    file = Path(path)
    try:
        with file.open("rb") as opened:
            start = opened.read(1 << 12)
    except OSError as error:
        raise ValueError(f"{key}={path}: {error.strerror}; give a file of JSON lines or Parquet") from error
    for first, found in _OTHER_KINDS.items():
        if start.startswith(first):
            raise ValueError(f"{key}={path} is {found}")
    start = start.removeprefix(_BOM).lstrip()
    if start.startswith(b"PAR1") or file.suffix == ".parquet":
        return Parquet(file, key)
    return JSONArray(file, key) if start.startswith(b"[") else JSONLines(file, key)
