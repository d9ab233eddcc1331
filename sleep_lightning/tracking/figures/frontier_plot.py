"""The data of a frontier plot, drawn as a picture and as an interactive page."""

from collections.abc import Iterable
from dataclasses import dataclass, field


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
        cost_label: of the x-axis.
        value_label: of the y-axis.
        dots: at least one.
        depths: every N of the sweep, so that each N has the same color in all figures.
        stopped: pruned trials, at the cost and value where they were stopped.
        edge: the dots on the frontier, in order of cost; empty: no line.
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
    levels: dict[str, float] = field(default_factory=dict)
    value_is_share: bool = True
    log_cost: bool = True
    cost_unit: str = ""


def depth_colors(depths: Iterable[int]) -> dict[int, str]:
    """A color (#rrggbb) for every N, dark for few passes and light for many."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    found = sorted(set(depths))
    return {n: to_hex(colormaps["viridis"](0.92 * i / max(len(found) - 1, 1))) for i, n in enumerate(found)}
