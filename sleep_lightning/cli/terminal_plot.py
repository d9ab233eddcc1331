"""The frontier as a plot of characters."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

from rich.text import Text

from sleep_lightning.formatting import with_unit
from sleep_lightning.frontier import Point, frontier

COLOURS = {
    "bright_cyan": "cyan+",
    "bright_yellow": "orange+",
    "bright_green": "green+",
    "bright_magenta": "magenta+",
    "bright_red": "red+",
    "bright_blue": "blue+",
}
"""As rich and as plotext name them."""
MARKS = "123456789abcdefghijklmnopqrstuvwxyz"
WIDEST = 120


def plot_frontier(points: Mapping[int, Sequence[Point]], width: int, height: int) -> Text:
    """Exact match over training FLOPs (log axis): each point marked by its N, a line along the frontier.

    Args:
        points: finished trials by N, the number of passes; those without a positive cost are skipped.
        width: of the plot, in characters; at most ``WIDEST`` are used.
        height: in lines, legend and axes included.
    """
    import plotext

    shown = {n: [p for p in points[n] if 0 < p.cost < math.inf and math.isfinite(p.value)] for n in sorted(points)}
    every = [p for group in shown.values() for p in group]
    if not every:
        return Text("no trial with a cost has finished yet", style="dim")
    plotext.clear_figure()
    plotext.limit_size(False, False)
    plotext.plot_size(min(width, WIDEST), height - 1)
    plotext.theme("clear")
    low, high = _ends(every)
    edge = [every[i] for i in frontier(every)]
    corners = [corner for p, after in zip(edge, [*edge[1:], None], strict=True) for corner in _corners(p, after, high)]
    plotext.plot([math.log10(p.cost) for p in corners], [p.value for p in corners], marker="·", color="gray+")
    legend = Text("exact match over training FLOPs, N =", no_wrap=True, overflow="ellipsis")
    for (n, group), (style, colour) in zip(shown.items(), cycle(COLOURS.items()), strict=False):
        x, y = [math.log10(p.cost) for p in group], [p.value for p in group]
        plotext.scatter(x, y, marker=_mark(n), color=colour)
        legend.append(f" {_mark(n)}" if _mark(n) == str(n) else f" {_mark(n)} ({n})", style)
    plotext.ylim(0, 1)
    plotext.yticks([0, 0.25, 0.5, 0.75, 1])
    plotext.xlim(math.log10(low), math.log10(high))
    ticks = _ticks(low, high, most=min(width, WIDEST) // 10)
    plotext.xticks([math.log10(tick) for tick in ticks], [with_unit(tick) for tick in ticks])
    return legend.append("\n").append_text(Text.from_ansi(plotext.build().rstrip("\n")))


def _mark(n: int) -> str:
    return MARKS[min(n, len(MARKS)) - 1]


def _corners(p: Point, after: Point | None, high: float) -> list[Point]:
    """The frontier is a staircase: constant up to the cost of the next point."""
    return [p, Point(high if after is None else after.cost, p.value)]


def _ends(points: Sequence[Point]) -> tuple[float, float]:
    """Ends of the axis, with a twentieth of it empty on both sides."""
    low, high = min(p.cost for p in points), max(p.cost for p in points)
    margin = (high / low) ** 0.05 if high > low else 2.0
    return low / margin, high * margin


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between the ends, as many as fit."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) <= most:
            break
    return ticks
