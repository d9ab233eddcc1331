"""The learning curve of every seed, a panel for each point. matplotlib is imported when the first one is drawn."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from sleep_lightning.tracking.figures.picture import save_figure

COLUMNS = 4
"""Panels beside each other at most."""
LETTERS = 38
"""In a line of a panel's title."""


@dataclass(frozen=True)
class SeedsPanel:
    """A point: for each seed, training FLOPs and exact match of its validations."""

    title: str
    curves: Sequence[Sequence[tuple[float, float]]]


def draw_seeds(panels: Sequence[SeedsPanel], levels: dict[str, float], path: Path, title: str) -> None:
    """Exact match of every seed over training FLOPs, on the same axes in all panels (PNG).

    Args:
        panels: of which each has a curve.
        levels: horizontal lines by name: the threshold, the majority answer.
        path: file to write.
        title: of the whole.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    columns = min(COLUMNS, len(panels))
    rows = ceil(len(panels) / columns)
    figure = Figure(figsize=(1 + 3.2 * columns, 1 + 2.8 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for i, panel in enumerate(panels):
        axes = grid.flat[i]
        for curve in panel.curves:
            axes.plot(*zip(*curve, strict=True), color="C0", linewidth=1, alpha=0.6)
            axes.plot(*curve[-1], ".", color="C0")
        for (name, level), dash in zip(levels.items(), ("--", ":"), strict=False):
            axes.axhline(level, color="grey", linestyle=dash, linewidth=1, label=f"{name} {level:.3g}")
        axes.set_title(textwrap.fill(panel.title.replace(";", "; "), LETTERS), fontsize="small")
        axes.grid(alpha=0.3)
        axes.tick_params(labelbottom=i + columns >= len(panels))  # none stands below it
        axes.xaxis.set_major_formatter(EngFormatter())
    grid[0, 0].set_ylim(0, 1.02)
    grid[0, 0].legend(fontsize="small", loc="upper left")
    figure.suptitle(title)
    figure.supxlabel("training FLOPs")
    figure.supylabel("validation exact match")
    save_figure(figure, path)
