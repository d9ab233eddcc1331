"""The data of a frontier plot, drawn as a picture and as an interactive page."""

from collections.abc import Iterable
from dataclasses import dataclass, field

BAND = "95% interval"
"""Label of the band along a frontier."""


@dataclass(frozen=True)
class Dot:
    """A finished trial.

    Attributes:
        trial: its number.
        n_passes: its N.
        cost: cost of a run.
        value: mean over seeds.
        low: value of the worst seed.
        high: value of the best seed.
        seeds: number of seeds.
        text: its varied keys on one line.
    """

    trial: int
    n_passes: int
    cost: float
    value: float
    low: float
    high: float
    seeds: int
    text: str


@dataclass(frozen=True)
class FrontierPlot:
    """Value over cost.

    Attributes:
        title: name of the sweep.
        cost_label: name of the cost.
        value_label: name of the value, of the y-axis.
        dots: at least one.
        depths: every N of the sweep, so that each N has the same color in all figures.
        stopped: pruned trials, at the cost and value where they were stopped.
        edge: the dots on the frontier, in order of cost; empty: no line.
        band: interval of the best value at the cost of each dot of the edge; empty: none.
        levels: horizontal lines by label.
        value_is_share: values lie between 0 and 1.
        log_cost: draw the cost on a logarithmic axis.
        cost_unit: of the cost, "" without one.
    """

    title: str
    cost_label: str
    value_label: str
    dots: tuple[Dot, ...]
    depths: tuple[int, ...]
    stopped: tuple[Dot, ...] = ()
    edge: tuple[Dot, ...] = ()
    band: tuple[tuple[float, float], ...] = ()
    levels: dict[str, float] = field(default_factory=dict)
    value_is_share: bool = True
    log_cost: bool = True
    cost_unit: str = ""

    @property
    def cost_axis(self) -> str:
        """Label of the x-axis."""
        return f"{self.cost_label} (s)" if self.cost_unit == "s" else self.cost_label


@dataclass(frozen=True)
class Style:
    """Attributes:
    color: #rrggbb.
    marker: as matplotlib names it.
    symbol: the same as plotly names it.
    """

    color: str
    marker: str
    symbol: str


COLORS = ("#4477dd", "#0b8a8a", "#3f922a", "#b07500", "#d9542b", "#c2569c")
"""From few passes to many, each with a contrast above 3.5 on white and on the dark page."""
MARKERS = {
    **{"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross"},
    **{"*": "star", "h": "hexagon"},
}


def depth_styles(depths: Iterable[int]) -> dict[int, Style]:
    """A color and a marker for every N."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    found, scale = sorted(set(depths)), LinearSegmentedColormap.from_list("depth", COLORS)
    markers = list(MARKERS.items())
    return {
        n: Style(to_hex(scale(i / max(len(found) - 1, 1))), *markers[i % len(markers)]) for i, n in enumerate(found)
    }
