"""Loss over N at equal training FLOPs, as a picture and as an interactive figure. Libraries are imported when drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sleep_lightning.formatting import in_flop, score
from sleep_lightning.tracking.figures.frontier_plot import Style, depth_styles
from sleep_lightning.tracking.figures.picture import save_figure
from sleep_lightning.tracking.figures.web_page import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from plotly.graph_objects import Figure

COLUMNS = 4
"""At most."""
WIDE = 100.0
"""A panel whose mean losses span so much has a logarithmic axis."""


@dataclass(frozen=True)
class Bowl:
    """A budget.

    Attributes:
        budget: training FLOPs.
        depths: every N.
        means, lows, highs: loss by N: mean over seeds, of the best seed, of the worst.
        best: N with the least loss, with its interval; unbounded ends and NaN are not drawn.
    """

    budget: float
    depths: tuple[int, ...]
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    best: tuple[float, float, float]


@dataclass(frozen=True)
class LawPanel:
    """A slice of the answers.

    Attributes:
        title: its name.
        bowls: by budget, the smallest first.
    """

    title: str
    bowls: tuple[Bowl, ...]


def _styles(bowls: Sequence[Bowl]) -> list[Style]:
    return list(depth_styles(range(len(bowls))).values())


def draw_law(panels: Sequence[LawPanel], path: Path, title: str) -> None:
    """Loss over N, a line for each budget with a mark at ``N*`` and its interval, shaded from the best seed to the
    worst; a panel for each slice, and one of ``N*`` over budgets (PNG)."""
    from matplotlib.figure import Figure

    rows = math.ceil((len(panels) + 1) / COLUMNS)
    columns = math.ceil((len(panels) + 1) / rows)
    figure = Figure(figsize=(4 * columns + 1, 3.4 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[len(panels) + 1 :]:
        axes.remove()
    for axes, panel in zip(grid, panels, strict=False):
        means = [mean for bowl in panel.bowls for mean in bowl.means]
        logarithmic = 0 < min(means) < max(means) / WIDE and min(x for bowl in panel.bowls for x in bowl.lows) > 0
        for bowl, style in zip(panel.bowls, _styles(panel.bowls), strict=True):
            color, line = style.color, f"{style.marker}-"
            axes.plot(bowl.depths, bowl.means, line, color=color, markersize=5, label=in_flop(bowl.budget))
            axes.fill_between(bowl.depths, bowl.lows, bowl.highs, color=color, alpha=0.12, linewidth=0)
            value, low, high = bowl.best
            level = _at(bowl, value, logarithmic)  # of a value that is not determined NaN, which is not drawn
            axes.plot([value], [level], "*", color=color, markersize=13, markeredgecolor="black", zorder=3)
            if math.isfinite(low):
                axes.plot([low, high], [level, level], color="black", linewidth=1, zorder=2)
        axes.set_xscale("log", base=2)
        _mark_depths(axes.xaxis, panel.bowls)
        if logarithmic:
            axes.set_yscale("log")
        axes.set(xlabel="passes N", title=panel.title)
        axes.grid(alpha=0.3)
    _draw_minima(grid[len(panels)], panels)
    grid[0].set_ylabel("validation loss, nats per label")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", title="budget; star: N*")
    figure.suptitle(title)
    save_figure(figure, path)


def _draw_minima(axes: "Axes", panels: Sequence[LawPanel]) -> None:
    """``N*`` over budgets, a line for each slice; slices side by side, or their intervals would hide each other."""
    axes.set(xscale="log", title="N* and its interval", ylabel="passes N")
    axes.set_yscale("log", base=2)
    for i, panel in enumerate(panels):
        aside = 1.04 ** (i - (len(panels) - 1) / 2)
        x, best = [bowl.budget * aside for bowl in panel.bowls], [bowl.best for bowl in panel.bowls]
        ends = [(v - low, high - v) if math.isfinite(low) else (math.nan, math.nan) for v, low, high in best]
        reach = [[max(end, 0.0) for end in side] for side in zip(*ends, strict=True)]
        style = "k*-" if i == 0 else f"C{(i - 1) % 10}o-"
        axes.errorbar(x, [v for v, _, _ in best], reach, fmt=style, markersize=5, linewidth=1, label=panel.title)
    bowls = [bowl for panel in panels for bowl in panel.bowls]
    _mark_depths(axes.yaxis, bowls)
    budgets = sorted({bowl.budget for bowl in bowls})
    axes.set_xticks(budgets, [in_flop(budget) for budget in budgets], fontsize="small", rotation=20)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _mark_depths(axis: "Axis", bowls: Sequence[Bowl]) -> None:
    depths = sorted({n for bowl in bowls for n in bowl.depths})
    axis.set_ticks(depths, labels=[str(n) for n in depths])
    axis.set_ticks([], minor=True)


def _at(bowl: Bowl, n: float, logarithmic: bool) -> float:
    """The line of means at N, straight between its points as it is drawn: over log N, and of the loss or its
    logarithm."""
    import numpy as np

    heights = np.log(bowl.means) if logarithmic else np.array(bowl.means)
    height = float(np.interp(math.log(n), [math.log(depth) for depth in bowl.depths], heights))
    return math.exp(height) if logarithmic else height


def _named(n: float) -> str:
    return "not determined" if math.isnan(n) else f"{n:.2f}"


def law_figure(panel: LawPanel) -> "Figure":
    """One slice: a line for each budget, with bars from the best seed to the worst."""
    figure = new_figure("passes N", "validation loss, nats per label")
    for bowl, style in zip(panel.bowls, _styles(panel.bowls), strict=True):
        bars = {
            "array": [high - mean for mean, high in zip(bowl.means, bowl.highs, strict=True)],
            "arrayminus": [mean - low for mean, low in zip(bowl.means, bowl.lows, strict=True)],
        }
        figure.add_scatter(
            x=bowl.depths,
            y=bowl.means,
            error_y={"type": "data", "symmetric": False, "thickness": 1, **bars},
            mode="lines+markers",
            line={"color": style.color},
            marker={"symbol": style.symbol, "size": 8},
            name=f"{in_flop(bowl.budget)}, N* {_named(bowl.best[0])}",
            text=[
                f"N = {n} at {in_flop(bowl.budget)}: {score(mean)} (mean of seeds from {score(low)} to {score(high)})"
                for n, mean, low, high in zip(bowl.depths, bowl.means, bowl.lows, bowl.highs, strict=True)
            ],
            hoverinfo="text",
        )
    depths = sorted({n for bowl in panel.bowls for n in bowl.depths})
    figure.update_xaxes(type="log", tickvals=depths, ticktext=[str(n) for n in depths])
    return figure
