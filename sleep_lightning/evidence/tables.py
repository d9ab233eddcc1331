"""Reading and writing rows of a dataclass as CSV."""

import csv
from collections.abc import Iterable
from dataclasses import MISSING, asdict, fields
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sleep_lightning.runs.files import write_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")


def write_table(kind: type[Row], rows: Iterable[Row], path: Path, *, digits: int = 6) -> None:
    """Write rows of a dataclass of numbers and strings, atomically.

    Args:
        kind: the dataclass, whose fields are the columns.
        rows: its instances.
        path: the file.
        digits: significant digits of floats below 1e6; larger ones are written in full.
    """
    text = StringIO()
    table = csv.DictWriter(text, [f.name for f in fields(kind)], lineterminator="\n")
    table.writeheader()
    for row in rows:
        cells = asdict(row)
        short = {k: f"{x:.{digits}g}" for k, x in cells.items() if isinstance(x, float) and abs(x) < 1e6}
        table.writerow(cells | short)
    write_text(path, text.getvalue())


def read_table(kind: type[Row], path: Path) -> list[Row]:
    """Read a table that ``write_table`` wrote.

    Raises:
        ValueError: the columns are not the fields of ``kind``; an older table may lack those that have a default.
    """
    with path.open(newline="") as file:
        table = csv.DictReader(file)
        columns = [f.name for f in fields(kind)]
        needed = [f.name for f in fields(kind) if f.default is MISSING]
        if table.fieldnames not in (columns, needed):
            raise ValueError(
                f"{path} is no table of {kind.__name__}: its columns are not {', '.join(columns)}; run reproduce again"
            )
        found = [f for f in fields(kind) if f.name in table.fieldnames]
        return [kind(**{f.name: f.type(row[f.name]) for f in found}) for row in table]  # type: ignore[operator]
