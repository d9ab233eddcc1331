"""Figures of runs. matplotlib is imported when the first one is drawn."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sleep_lightning.tracking.figures.frontier_plot import BAND, FrontierPlot, depth_styles
from sleep_lightning.tracking.figures.picture import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SLICES = 8
"""Most slices that are drawn."""


def draw_learning_curve(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Exact match and token accuracy against training FLOPs, with the baselines as dashed and dotted lines, and exact
    match by slice where there are several (PNG).

    Args:
        history: one dict per validation, with ``cost/train_flops``, the names of ``Score.as_metrics``, and
            ``<slice>/exact_match``.
        path: file to write.
        title: what was trained.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    flops = [row["cost/train_flops"] for row in history]
    lines = (("exact_match", "majority_exact_match", "C0"), ("token_accuracy", "majority_token_accuracy", "C1"))
    for metric, baseline, color in lines:
        axes.plot(flops, [row[metric] for row in history], color=color, marker="o", label=metric.replace("_", " "))
        level = history[-1][baseline]
        axes.axhline(level, color=color, linestyle="--", label=f"{baseline.replace('_', ' ')} {level:.3f}")
    if (uniform := history[-1].get("uniform_exact_match")) is not None:
        axes.axhline(uniform, color="C0", linestyle=":", label=f"uniform exact match {uniform:.3f}")
    slices = [key for key in history[-1] if key.endswith("/exact_match") and all(key in row for row in history)]
    for i, key in enumerate(slices[:MOST_SLICES]):
        shade = str(0.15 + 0.6 * i / max(len(slices[:MOST_SLICES]) - 1, 1))
        label = key.removesuffix("/exact_match").replace("_", " ")
        axes.plot(flops, [row[key] for row in history], color=shade, linewidth=1, label=label)
    axes.set(xlabel="training FLOPs", ylabel="validation accuracy", ylim=(0, 1.02), title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, path)


class Compared(Protocol):
    """The fields of a comparison's row that every picture of it shows."""

    @property
    def arm(self) -> str: ...
    @property
    def test_passes(self) -> int: ...
    @property
    def train_passes(self) -> str: ...
    @property
    def exact_match(self) -> list[float]: ...
    @property
    def majority(self) -> float: ...
    @property
    def uniform(self) -> float: ...


class Trained(Compared, Protocol):
    """With what its training took."""

    @property
    def train_flops(self) -> int: ...
    @property
    def no_memory(self) -> list[float]: ...


def draw_comparison(rows: Sequence[Trained], path: Path, title: str) -> None:
    """Exact match over training FLOPs: a point for each arm, with a bar from its worst seed to its best; hollow where
    the same weights answer without memory (PNG)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    draw_arms(axes, [(row, row.train_flops) for row in rows])
    zeroed = [row for row in rows if row.no_memory and tested_as_trained(row)]
    if zeroed:
        x, y = [row.train_flops for row in zeroed], [sum(row.no_memory) / len(row.no_memory) for row in zeroed]
        axes.scatter(x, y, facecolors="none", edgecolors="black", label="memory zeroed", zorder=3)
    axes.set(ylabel="test exact match", title=title)
    flops_axis(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, path)


def draw_arms(axes: "Axes", rows: Sequence[tuple[Compared, float]]) -> None:
    """A point for each arm tested with its own N, with a bar from its worst seed to its best, and the baselines.

    Args:
        axes: to draw on.
        rows: with the place of each on the x-axis, which is logarithmic: what has none there (0) is named only, so that
            an arm looks the same on all axes with the same rows.
    """
    for i, (row, x) in enumerate((row, x) for row, x in rows if tested_as_trained(row)):
        middle = sum(row.exact_match) / len(row.exact_match)
        reach = ([middle - min(row.exact_match)], [max(row.exact_match) - middle])
        style = {"marker": "osD^vP*X"[i % 8], "color": f"C{i % 10}", "capsize": 4, "linestyle": "none"}
        place = ([x], [middle], reach) if x > 0 else ([], [], None)
        axes.errorbar(*place, label=row.arm, **style)  # type: ignore[arg-type]
    first = rows[0][0]
    axes.axhline(first.majority, color="grey", linestyle="--", label=f"majority answer {first.majority:.3f}")
    axes.axhline(first.uniform, color="grey", linestyle=":", label=f"uniform guess {first.uniform:.3f}")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)


def tested_as_trained(row: Compared) -> bool:
    """Whether it is tested with the N of its training; if N was drawn there, every N is."""
    return row.train_passes == str(row.test_passes) or "," in row.train_passes


def draw_frontier(plot: FrontierPlot, path: Path) -> None:
    """Value over cost (PNG): a dot for each trial, coloured and shaped by its N, with a bar from its worst seed to its
    best; a cross where one was stopped; a step line along the frontier, with its interval over seeds; the baselines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    of_depth = depth_styles(plot.depths)
    for n, style in of_depth.items():
        mine = [dot for dot in plot.dots if dot.n_passes == n]
        if not mine:
            if any(dot.n_passes == n for dot in plot.stopped):
                axes.plot([], [], style.marker, color=style.color, label=f"N = {n}")
            continue
        x, y = [dot.cost for dot in mine], [dot.value for dot in mine]
        reach = ([dot.value - dot.low for dot in mine], [dot.high - dot.value for dot in mine])
        seeds = any(dot.seeds > 1 for dot in mine)
        axes.errorbar(x, y, reach if seeds else None, fmt=style.marker, color=style.color, capsize=3, label=f"N = {n}")
    colors = [of_depth[dot.n_passes].color for dot in plot.stopped]
    if plot.stopped:
        x, y = [dot.cost for dot in plot.stopped], [dot.value for dot in plot.stopped]
        axes.scatter(x, y, c=colors, marker="x", s=25, linewidths=1, zorder=1, label="stopped early")
    if plot.edge:
        x = [dot.cost for dot in plot.edge]
        axes.step(x, [dot.value for dot in plot.edge], where="post", color="black", linewidth=1, label="frontier")
        if plot.band:
            low, high = zip(*plot.band, strict=True)
            axes.fill_between(x, low, high, step="post", color="black", alpha=0.1, label=BAND)
    for (label, level), dash in zip(plot.levels.items(), ("--", ":"), strict=False):
        axes.axhline(level, color="grey", linestyle=dash, label=label)
    axes.set(xlabel=plot.cost_axis, ylabel=plot.value_label, title=plot.title)
    if plot.value_is_share:
        axes.set_ylim(0, 1.02)
    if plot.log_cost:
        flops_axis(axes, plot.cost_axis)
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()  # matplotlib puts error bars last
    names = [f"N = {n}" for n in plot.depths]
    order = sorted(range(len(labels)), key=lambda i: names.index(labels[i]) if labels[i] in names else len(names))
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, path)


def flops_axis(axes: "Axes", label: str = "training FLOPs") -> None:
    """A logarithmic x-axis with readable units (10 T) at any range. Call it after the points are drawn."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.set(xlabel=label, xscale="log")
    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    subs = (1, 1.5, 2, 3, 5, 7) if decades < 1.2 else (1, 2, 5) if decades < 3 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
