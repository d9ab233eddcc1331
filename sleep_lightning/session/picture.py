"""A memory as a picture: one row per head."""

from typing import TYPE_CHECKING

from sleep_lightning.session.inspection import Inspection

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_of(inspection: Inspection) -> "Figure":
    """Norm, effective rank and half-life of every head as bars, and its change by pass of the last window.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a picture of a memory needs matplotlib; pip install matplotlib") from error
    heads = inspection.heads
    names, places = [f"{h.block}.{h.head}" for h in heads], list(range(len(heads)))
    passes = max((len(h.by_pass) for h in heads), default=0)
    figure = Figure(figsize=(11, 1.5 + 0.22 * len(heads)), layout="constrained")
    axes = figure.subplots(1, 4, sharey=True, squeeze=False)[0]
    columns = {
        "norm": [h.norm for h in heads],
        "effective rank": [h.effective_rank for h in heads],
        "half-life (tokens)": [h.half_life or 0.0 for h in heads],
    }
    for axis, (title, values) in zip(axes, columns.items(), strict=False):
        axis.barh(places, [v if v < float("inf") else 0.0 for v in values])
        axis.set_title(title, fontsize=10)
    for n in range(passes):
        shares = [h.by_pass[n] if n < len(h.by_pass) else 0.0 for h in heads]
        axes[3].plot(shares, places, "o", ms=4, label=f"pass {n + 1}")
    axes[3].set_title("change of the last window", fontsize=10)
    if passes:
        axes[3].legend(fontsize=8)
    axes[0].set_yticks(places, names, fontsize=8)
    axes[0].set_ylabel("block.head")
    axes[0].invert_yaxis()
    return figure
