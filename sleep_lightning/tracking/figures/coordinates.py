"""The picture of a coordinate check. matplotlib is imported when it is drawn."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from sleep_lightning.tracking.figures.picture import save_figure

SIZES = ("hidden", "memory", "logits")


def draw_coordinates(rows: Sequence[dict[str, object]], path: Path) -> None:
    """Root mean squares over width or N (PNG): a row of panels for each table, a panel for each size, with its update.

    Args:
        rows: of ``bench coordinates``, in its order.
        path: file to write.
    """
    from matplotlib.figure import Figure

    tables = {str(what): list(group) for what, group in groupby(rows, key=lambda row: row["what"])}
    figure = Figure(figsize=(10, 2.8 * len(tables)), layout="constrained")
    grid = figure.subplots(len(tables), len(SIZES), squeeze=False)
    for panels, (what, found) in zip(grid, tables.items(), strict=True):
        key = "d_model" if len({row["d_model"] for row in found}) > 1 else "N"
        x = [float(str(row[key])) for row in found]
        for axes, size in zip(panels, SIZES, strict=True):
            for name, style in ((size, "o-"), (f"{size}_update", "s--")):
                axes.plot(x, [float(str(row[name])) for row in found], style, label=name.replace("_", ", "))
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            axes.set_xticks(x, [f"{value:g}" for value in x])
            axes.minorticks_off()
            axes.set(xlabel=key, title=f"{what.removeprefix('coordinates ')}: {size}")
            low, high = axes.get_ylim()
            axes.set_ylim(low / 2, high * 2)  # what is flat looks flat
            axes.grid(alpha=0.3)
        panels[0].legend(fontsize="small")
    save_figure(figure, path)
