"""Interactive figures of a sweep. plotly is imported when the first one is drawn.

Texts come from files that users write: whatever plotly would read as markup is escaped.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from sleep_lightning.formatting import in_flop, score, with_unit
from sleep_lightning.tracking.figures.frontier_plot import BAND, COLORS, Dot, FrontierPlot, depth_styles
from sleep_lightning.tracking.figures.web_page import new_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Points = Sequence[tuple[float, float]]
NEUTRAL, GREY = "#888888", "rgba(128, 128, 128, 0.25)"
"""Of lines and bands, in the light and in the dark."""


def frontier_figure(plot: FrontierPlot) -> "Figure":
    """Value over cost: a dot for each trial, coloured and shaped by its N, with its keys as hover text and a bar from
    its worst seed to its best; a cross where one was stopped; a step line along the frontier, with its
    interval over seeds; the baselines as lines."""
    figure = new_figure(plot.cost_axis, plot.value_label, plot.log_cost, plot.value_is_share)
    if plot.edge:
        _add_edge(figure, plot)
    styles = depth_styles(plot.depths)
    for n, style in styles.items():
        mine = [dot for dot in plot.dots if dot.n_passes == n]
        if not mine:
            continue
        seeds = {
            "array": [dot.high - dot.value for dot in mine],
            "arrayminus": [dot.value - dot.low for dot in mine],
            "visible": any(dot.seeds > 1 for dot in mine),
        }
        figure.add_scatter(
            x=[dot.cost for dot in mine],
            y=[dot.value for dot in mine],
            error_y={"type": "data", "symmetric": False, "thickness": 1, **seeds},
            mode="markers",
            marker={"color": style.color, "symbol": style.symbol, "size": 10},
            name=f"N = {n}",
            text=[_hover(plot, dot) for dot in mine],
            hoverinfo="text",
        )
    if plot.stopped:
        figure.add_scatter(
            x=[dot.cost for dot in plot.stopped],
            y=[dot.value for dot in plot.stopped],
            mode="markers",
            marker={
                "color": [styles[dot.n_passes].color for dot in plot.stopped],
                "symbol": "x-thin-open",
                "line": {"width": 2},
            },
            name="stopped early",
            text=[_hover(plot, dot) for dot in plot.stopped],
            hoverinfo="text",
        )
    _add_levels(figure, [dot.cost for dot in plot.dots], plot.levels)
    return figure


def _add_levels(figure: "Figure", x: Sequence[float], levels: Mapping[str, float]) -> None:
    """Horizontal lines, as far as the points go."""
    for (label, level), dash in zip(levels.items(), ("dash", "dot"), strict=False):
        figure.add_scatter(
            x=[min(x), max(x)],
            y=[level, level],
            mode="lines",
            line={"color": NEUTRAL, "dash": dash},
            name=escape(label),
            hoverinfo="name",
        )


def _add_edge(figure: "Figure", plot: FrontierPlot) -> None:
    x = [dot.cost for dot in plot.edge]
    if plot.band:
        ends: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip", "legendgroup": "seeds"}
        line = {"shape": "hv", "width": 0, "color": GREY}
        figure.add_scatter(x=x, y=[low for low, _ in plot.band], line=line, showlegend=False, **ends)
        band = {"fill": "tonexty", "fillcolor": GREY, "name": BAND}
        figure.add_scatter(x=x, y=[high for _, high in plot.band], line=line, **ends, **band)
    line = {"color": NEUTRAL, "width": 2, "shape": "hv"}
    figure.add_scatter(
        x=x, y=[dot.value for dot in plot.edge], mode="lines", line=line, name="frontier", hoverinfo="skip"
    )


def _hover(plot: FrontierPlot, dot: Dot) -> str:
    spread = f" (mean of {dot.seeds} seeds from {score(dot.low)} to {score(dot.high)})" if dot.seeds > 1 else ""
    cost = f"{escape(plot.cost_label)} {with_unit(dot.cost, plot.cost_unit)}"
    value = f"{escape(plot.value_label)} {score(dot.value)}{spread}"
    return "<br>".join([f"<b>trial {dot.trial}</b>, {cost}", value, *escape(dot.text).split(", ")])


def progress_figure(points: Points, label: str) -> "Figure":
    """Progress (hypervolume or best value) over the FLOPs spent."""
    figure = new_figure("training FLOPs of all trials", label)
    x, y = zip(*points, strict=True)
    texts = [f"{escape(label)} {score(value)} after {in_flop(flops)}" for flops, value in points]
    line = {"shape": "hv", "color": COLORS[0]}
    figure.add_scatter(x=x, y=y, mode="lines+markers", line=line, name=escape(label), text=texts, hoverinfo="text")
    figure.update_yaxes(rangemode="tozero")
    return figure


def curves_figure(curves: Sequence[tuple[Dot, Points]], depths: Sequence[int], levels: Mapping[str, float]) -> "Figure":
    """Validation exact match over training FLOPs: a line for each trial, coloured and marked by its N (one of
    ``depths``), and the baselines of exact match, if there are any."""
    figure = new_figure("training FLOPs of a run", "exact match", share=True)
    styles, named = depth_styles(depths), set[int]()
    for dot, curve in sorted(curves, key=lambda c: (c[0].n_passes, c[0].trial)):
        x, y = zip(*curve, strict=True)
        style = styles[dot.n_passes]
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines+markers",
            line={"color": style.color, "width": 1.5},
            marker={"symbol": style.symbol, "size": 6},
            name=f"N = {dot.n_passes}",
            legendgroup=str(dot.n_passes),
            showlegend=dot.n_passes not in named,
            text=[in_flop(flops) for flops in x],
            hovertemplate=f"trial {dot.trial}: %{{y:.3f}} at %{{text}}<br>{escape(dot.text)}<extra></extra>",
        )
        named.add(dot.n_passes)
    _add_levels(figure, [flops for _, curve in curves for flops, _ in curve], levels)
    return figure


def importances_figure(importances: Mapping[str, Mapping[str, float]]) -> "Figure":
    """Importance of each key: a bar for every objective."""
    figure = new_figure("importance", "")
    for i, (name, shares) in enumerate(importances.items()):
        shown = sorted(shares.items(), key=lambda item: item[1])
        figure.add_bar(
            x=[share for _, share in shown],
            y=[escape(key) for key, _ in shown],
            orientation="h",
            name=escape(name),
            marker={
                "color": COLORS[3 * i % len(COLORS)],
                "pattern": {"shape": ("", "/")[i % 2]},
                "line": {"width": 0},
            },
            hovertemplate="%{y}: %{x:.1%}",
        )
    figure.update_layout(barmode="group")
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(automargin=True)
    return figure
