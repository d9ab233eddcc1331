"""Pieces of a report's page. All texts are escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple


class Cell(NamedTuple):
    """Of a table that can be sorted.

    Attributes:
        html: its content.
        value: what it sorts by; None: by its text.
    """

    html: str
    value: float | None = None


def head(title: str, note: str = "") -> str:
    """A section's title, and a sentence on it."""
    return f"<h2>{escape(title)}</h2>" + (paragraph(note, "note") if note else "")


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def link(text: str, url: str) -> str:
    return f'<a href="{escape(url)}">{escape(text)}</a>'


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts, which scrolls sideways where it is too wide."""
    return html_table(titles, ([escape(text) for text in row] for row in rows))


def html_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same of HTML."""
    head = f"<thead><tr>{''.join(f'<th>{escape(text)}</th>' for text in titles)}</tr></thead>" if titles else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def sortable(name: str, titles: Sequence[str], rows: Sequence[Sequence[Cell]], shown: int = 100) -> str:
    """A table that is sorted by a click on a title.

    Args:
        name: of the element.
        titles: of the columns.
        rows: cells.
        shown: rows of a long one that are shown at first, as the page's style has it.
    """
    heads = "".join(f'<th><button type="button">{escape(text)}</button></th>' for text in titles)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    more = f'<button type="button" class="more" aria-controls="{name}">show all {len(rows)} rows</button>'
    return (
        f'<div class="wide"><table id="{name}" class="sortable first"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>" + (more if len(rows) > shown else "")
    )


def _cell(cell: Cell) -> str:
    if cell.value is None:
        return f"<td>{cell.html}</td>"
    return f'<td class="number" data-value="{cell.value!r}">{cell.html}</td>'
