"""What is drawn of a sweep's frontier, as a picture and as an interactive page alike."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Dot:
    """A finished trial.

    Attributes:
        trial: its number.
        n_passes: its N.
        cost: what was paid.
        value: what it reached, mean over seeds.
        low: its worst seed.
        high: its best seed.
        seeds: how many there are.
        text: its point, on a line.
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
        edge: the dots that nothing beats, the next costing more; empty: no line.
        levels: horizontal lines by label.
        value_is_share: values lie between 0 and 1.
        log_cost: draw the cost on a logarithmic axis.
    """

    title: str
    cost_label: str
    value_label: str
    dots: tuple[Dot, ...]
    edge: tuple[Dot, ...] = ()
    levels: dict[str, float] = field(default_factory=dict)
    value_is_share: bool = True
    log_cost: bool = True


def depth_colors(dots: Iterable[Dot]) -> dict[int, str]:
    """A color (#rrggbb) for every N, dark for few passes and light for many."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    depths = sorted({dot.n_passes for dot in dots})
    return {n: to_hex(colormaps["viridis"](0.92 * i / max(len(depths) - 1, 1))) for i, n in enumerate(depths)}
