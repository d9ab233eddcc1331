"""Interactive figures of a sweep. plotly is imported when the first one is drawn.

Texts come from files that users write: whatever plotly would read as markup is escaped.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleep_lightning.formatting import with_unit
from sleep_lightning.runs.files import write_text
from sleep_lightning.tracking.figures.frontier_plot import Dot, FrontierPlot, depth_colors

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Points = Sequence[tuple[float, float]]


def frontier_figure(plot: FrontierPlot) -> "Figure":
    """Value over cost: a dot for each trial, coloured by its N, with its keys as hover text and a bar from its worst
    seed to its best; a cross where one was stopped; a step line along the frontier, with the band of its seeds; the
    baselines as lines."""
    figure = _figure(plot.cost_label, plot.value_label, plot.log_cost, plot.value_is_share)
    if plot.edge:
        _add_edge(figure, plot.edge)
    colors = depth_colors(plot.depths)
    for n, color in colors.items():
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
            marker={"color": color, "size": 9, "line": {"color": "white", "width": 1}},
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
                "color": [colors[dot.n_passes] for dot in plot.stopped],
                "symbol": "x-thin-open",
            },
            name="stopped early",
            text=[_hover(plot, dot) for dot in plot.stopped],
            hoverinfo="text",
        )
    for (label, level), dash in zip(plot.levels.items(), ("dash", "dot"), strict=False):
        x = [min(dot.cost for dot in plot.dots), max(dot.cost for dot in plot.dots)]
        figure.add_scatter(
            x=x, y=[level, level], mode="lines", line={"color": "grey", "dash": dash}, name=escape(label)
        )
    return figure


def _add_edge(figure: "Figure", edge: Sequence[Dot]) -> None:
    x = [dot.cost for dot in edge]
    if any(dot.seeds > 1 for dot in edge):
        ends: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip", "legendgroup": "seeds"}
        line = {"shape": "hv", "width": 0, "color": "rgba(0,0,0,0.1)"}
        figure.add_scatter(x=x, y=[dot.low for dot in edge], line=line, showlegend=False, **ends)
        band = {"fill": "tonexty", "fillcolor": "rgba(0,0,0,0.1)", "name": "its seeds"}
        figure.add_scatter(x=x, y=[dot.high for dot in edge], line=line, **ends, **band)
    line = {"color": "black", "width": 1, "shape": "hv"}
    figure.add_scatter(x=x, y=[dot.value for dot in edge], mode="lines", line=line, name="frontier", hoverinfo="skip")


def _hover(plot: FrontierPlot, dot: Dot) -> str:
    spread = f" ({dot.low:.3f} to {dot.high:.3f} over {dot.seeds} seeds)" if dot.seeds > 1 else ""
    head = f"<b>trial {dot.trial}</b>: {plot.value_label} {dot.value:.4g}{spread}, {plot.cost_label} "
    head += with_unit(dot.cost, plot.cost_unit)
    return "<br>".join([head, *escape(dot.text).split(", ")])


def progress_figure(points: Points, label: str) -> "Figure":
    """Progress (hypervolume or best value) over the FLOPs spent."""
    figure = _figure("training FLOPs spent, failed and pruned trials included", label)
    x, y = zip(*points, strict=True)
    line = {"shape": "hv", "color": "#31688e"}
    figure.add_scatter(x=x, y=y, mode="lines+markers", line=line, name=escape(label))
    figure.update_yaxes(rangemode="tozero")
    return figure


def curves_figure(curves: Sequence[tuple[Dot, Points]], depths: Sequence[int]) -> "Figure":
    """Validation exact match over training FLOPs: a line for each trial, coloured by its N (one of ``depths``)."""
    figure = _figure("training FLOPs", "exact match", share=True)
    colors, named = depth_colors(depths), set[int]()
    for dot, curve in sorted(curves, key=lambda c: (c[0].n_passes, c[0].trial)):
        x, y = zip(*curve, strict=True)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": colors[dot.n_passes], "width": 1.5},
            name=f"N = {dot.n_passes}",
            legendgroup=str(dot.n_passes),
            showlegend=dot.n_passes not in named,
            hovertemplate=f"trial {dot.trial}: %{{y:.3f}} at %{{x:.3s}}<br>{escape(dot.text)}<extra></extra>",
        )
        named.add(dot.n_passes)
    return figure


def importances_figure(importances: Mapping[str, Mapping[str, float]]) -> "Figure":
    """Importance of each key: a bar for every objective."""
    figure = _figure("importance", "")
    for name, shares in importances.items():
        shown = sorted(shares.items(), key=lambda item: item[1])
        x, y = [share for _, share in shown], [escape(key) for key, _ in shown]
        figure.add_bar(x=x, y=y, orientation="h", name=escape(name))
    figure.update_layout(barmode="group", margin={"l": 170})
    return figure


def write_page(figure: "Figure", path: Path, title: str) -> None:
    """Write the figure as a page that needs no network: it includes plotly.js (5 MB)."""
    figure.update_layout(title=escape(title))
    write_text(path, figure.to_html(include_plotlyjs=True, default_height="90vh"))


def as_div(figure: "Figure") -> str:
    """The figure as a part of a page that includes plotly.js."""
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, default_height="460px")
    return html


def plotly_js() -> str:
    """The source of plotly.js."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def _figure(x: str, y: str, log_x: bool = False, share: bool = False) -> "Figure":
    from plotly.graph_objects import Figure

    layout: dict[str, Any] = {"template": "simple_white", "margin": {"t": 40, "r": 20}}
    figure = Figure(layout=layout)
    log = {"type": "log", "dtick": "D2"} if log_x else {}
    figure.update_xaxes(title=escape(x), showgrid=True, tickformat=".3~s", **log)
    figure.update_yaxes(title=escape(y), showgrid=True, **({"range": [0, 1.02]} if share else {}))
    return figure
