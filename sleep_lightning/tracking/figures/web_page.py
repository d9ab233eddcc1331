"""Pages with interactive figures that need no network, on wide screens and phones, in the light and in the dark."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from sleep_lightning.runs.files import write_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #222; --soft: #555; --line: #bbb; --faint: #e6e6e6;
  --code: #f3f3f3; --link: #0b57d0; }
@media (prefers-color-scheme: dark) { :root { --page: #16181d; --text: #e4e6ea; --soft: #a8adb5; --line: #555c68;
  --faint: #30353d; --code: #23272e; --link: #8ab4f8; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 1000px;
  margin: 2em auto; padding: 0 1em; overflow-wrap: break-word; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2.2em; border-bottom: 1px solid var(--line); }
a { color: var(--link); } .note { color: var(--soft); } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92em; }
th, td { text-align: left; vertical-align: top; padding: 0.25em 1em 0.25em 0; }
thead th { border-bottom: 1px solid var(--line); } tr + tr > * { border-top: 1px solid var(--faint); }
th { font-weight: 600; } .number { text-align: right; font-variant-numeric: tabular-nums; }
thead th, thead + tbody td { white-space: nowrap; }
tbody:first-child td:last-child { overflow-wrap: anywhere; }
thead + tbody td:last-child { white-space: normal; min-width: 14em; }
code { font-size: 0.92em; background: var(--code); padding: 0.1em 0.3em; overflow-wrap: anywhere; user-select: all; }
button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
.sortable th button::after { content: " \\2195"; color: var(--soft); }
.sortable [aria-sort=ascending] button::after { content: " \\2191"; color: inherit; }
.sortable [aria-sort=descending] button::after { content: " \\2193"; color: inherit; }
.first tbody tr:nth-child(n + 101) { display: none; } .more { color: var(--link); text-decoration: underline; }
.js-plotly-plot :is(.xtick, .ytick, .g-xtitle, .g-ytitle, .g-gtitle, .legend) text { fill: var(--text) !important; }
.js-plotly-plot :is(.gridlayer, .zerolinelayer) path { stroke: var(--faint) !important; }
.js-plotly-plot :is(path.xtick, path.ytick, .xlines-above, .ylines-above) { stroke: var(--soft) !important; }
"""
"""Plotly draws its texts and axes in colours of their own: they are those of the page here."""
CONFIG = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
SCRIPT = """
// a finger on a figure scrolls the page
if (matchMedia('(pointer: coarse)').matches)
  document.querySelectorAll('.js-plotly-plot').forEach(plot => Plotly.relayout(plot, {dragmode: false}));
document.querySelectorAll('.sortable').forEach(table => {
  const texts = new Intl.Collator(undefined, {numeric: true});
  table.querySelectorAll('th button').forEach((button, column) => button.onclick = () => {
    const head = button.parentElement, sign = head.ariaSort === 'ascending' ? -1 : 1;
    for (const other of head.parentElement.cells) other.removeAttribute('aria-sort');
    head.ariaSort = sign > 0 ? 'ascending' : 'descending';
    const keys = [...table.tBodies[0].rows].map(row => {
      const cell = row.cells[column];
      return [cell.dataset.value ?? cell.textContent, row];
    });
    keys.sort(([a], [b]) => a === '' || b === '' ? (a === '') - (b === '')
      : sign * (isNaN(a) || isNaN(b) ? texts.compare(a, b) : a - b));
    table.tBodies[0].append(...keys.map(([, row]) => row));
  });
});
document.querySelectorAll('.more').forEach(button => button.onclick = () => {
  document.getElementById(button.getAttribute('aria-controls')).classList.remove('first');
  button.remove();
});
"""
"""Cells sort by ``data-value``, else by their text; empty ones come last."""


def web_page(title: str, parts: Sequence[str], figures: bool) -> str:
    """A whole page.

    Args:
        title: of the window.
        parts: of its body, as HTML.
        figures: whether there are any: they need plotly.js (5 MB).
    """
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    library = f"<script>{plotly_js()}</script>" if figures else ""
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}{library}</head><body>\n{body}\n'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def new_figure(x: str, y: str, log_x: bool = False, share: bool = False) -> "Figure":
    """An empty figure on the page's own ground, its legend below.

    Args:
        x: label of the x-axis.
        y: of the y-axis.
        log_x: draw x on a logarithmic axis.
        share: y lies between 0 and 1.
    """
    from plotly.graph_objects import Figure

    clear = "rgba(0,0,0,0)"
    figure = Figure(
        layout={
            "template": "simple_white",
            "paper_bgcolor": clear,
            "plot_bgcolor": clear,
            "margin": {"t": 30, "r": 10, "l": 60},
            "legend": {"orientation": "h", "yanchor": "top", "y": -0.22, "bgcolor": clear},
            "modebar": {"bgcolor": clear, "color": "#888888", "activecolor": "#4477dd"},
            "hovermode": "closest",
        }
    )
    log = {"type": "log", "dtick": "D2"} if log_x else {}
    title = {"text": escape(x), "standoff": 6}  # above the legend
    figure.update_xaxes(title=title, showgrid=True, tickformat=".3~s", **log)
    figure.update_yaxes(title=escape(y), showgrid=True, **({"range": [0, 1.02]} if share else {}))
    return figure


def write_page(figure: "Figure", path: Path, title: str) -> None:
    """Write the figure as a page of its own."""
    write_text(path, web_page(title, [f"<h1>{escape(title)}</h1>", as_div(figure, "80vh")], figures=True))


def as_div(figure: "Figure", height: str = "480px") -> str:
    """The figure as a part of a page."""
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, default_height=height, config=CONFIG)
    return html


def plotly_js() -> str:
    """The source of plotly.js."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source
