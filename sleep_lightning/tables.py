"""Tables that fit the terminal, where a number is never cut: columns are left out, then rows stacked. And Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

FOLDED = 24
"""Width down to which text is folded."""
EDGES = 3
"""Characters around a cell: two spaces and a border."""


@dataclass(frozen=True)
class Column:
    """Attributes:
    name: its header.
    rank: 0: always shown; of the others, the highest is left out first.
    text: words, left-aligned and folded where there is little room; else a number, right-aligned and whole.
    label: of each row: left-aligned and whole.
    """

    name: str
    rank: int = 0
    text: bool = False
    label: bool = False


@dataclass
class FittingTable:
    """Attributes:
    title: above it.
    columns: from left to right.
    rows: cells as text.
    sections: numbers of the rows after which a line is drawn.
    elsewhere: where the columns that are left out can be read; "" says nothing.
    """

    title: str
    columns: Sequence[Column]
    rows: list[Sequence[str]] = field(default_factory=list)
    sections: list[int] = field(default_factory=list)
    elsewhere: str = ""

    def add_row(self, *cells: str) -> None:
        assert len(cells) == len(self.columns)
        self.rows.append(cells)

    def add_section(self) -> None:
        """Draw a line after the last row."""
        self.sections.append(len(self.rows) - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._fitting(options.max_width)
        if shown is None:
            yield from self._stacked()
            return
        table = Table(title=self.title, title_justify="left")
        for i in shown:
            one = self.columns[i]
            left, folds = one.text or one.label, one.text
            table.add_column(
                one.name,
                justify="left" if left else "right",
                no_wrap=not folds,
                overflow="fold" if folds else "ellipsis",
            )
        for number, row in enumerate(self.rows):
            table.add_row(*(row[i] for i in shown), end_section=number in self.sections)
        yield table
        left_out = [column.name for i, column in enumerate(self.columns) if i not in shown and column.name]
        if left_out and self.elsewhere:
            yield f"left out here: {', '.join(left_out)}; {self.elsewhere}"

    def _fitting(self, room: int) -> list[int] | None:
        """Columns that fit; None if not even those that are always shown do."""
        shown = list(range(len(self.columns)))
        while sum(map(self._width, shown)) + 1 > room:
            extra = [i for i in shown if self.columns[i].rank]
            if not extra:
                return None
            shown.remove(max(extra, key=lambda i: (self.columns[i].rank, i)))
        return shown

    def _width(self, i: int) -> int:
        widest = max(cell_len(text) for text in (self.columns[i].name, *(row[i] for row in self.rows)))
        return EDGES + (min(widest, FOLDED) if self.columns[i].text else widest)

    def _stacked(self) -> Iterator[str]:
        """A line for each cell that holds something, a gap between rows."""
        yield self.title
        for row in self.rows:
            yield ""
            for column, cell in zip(self.columns, row, strict=True):
                if cell:
                    yield f"{column.name}: {cell}" if column.name else cell


def markdown_table(header: Sequence[str], rows: Iterable[Iterable[object]], *, numbers: bool = False) -> str:
    """A Markdown table; with ``numbers`` all columns but the first are right-aligned."""
    rule = ["---", *["---:" if numbers else "---"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (header, rule, *rows))
