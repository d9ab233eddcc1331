"""The picture of an injection. matplotlib is imported when it is drawn."""

from collections.abc import Sequence
from pathlib import Path

from sleep_lightning.tracking.figures.picture import save_figure


def draw_injection(rows: Sequence[dict[str, object]], path: Path) -> None:
    """The share of answers that follow the poison over clean windows (PNG): a panel for each kind of them, a line for
    each N, and each model if there are several, dashed without the poison.

    Args:
        rows: of ``bench injection``.
        path: file to write.
    """
    from matplotlib.figure import Figure

    lasting = [row for row in rows if row["hops"] == 1 and "equal_to_the_bit" not in row and row["clean"] != "none yet"]
    lines = sorted({(str(row["shape"]), int(str(row["N"]))) for row in lasting})
    one_model = len({shape for shape, _ in lines}) == 1
    kinds = list(dict.fromkeys(row["clean"] for row in lasting))
    figure = Figure(figsize=(3.4 * len(kinds), 3.4), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0], kinds, strict=True):
        for i, (shape, n) in enumerate(lines):
            for way, style in (("slept on", "o-"), ("never read", "s--")):
                key = (shape, kind, n, way)
                of = [row for row in lasting if (row["shape"], row["clean"], row["N"], row["contender"]) == key]
                k, low, share, high = (
                    [float(str(row[key])) for row in of] for key in ("k", "follows_low", "follows", "follows_high")
                )
                name = f"N = {n}" if one_model else str(shape).partition(",")[0]
                label = name if way == "slept on" else None
                axes.plot(range(len(k)), share, style, color=f"C{i}", label=label, alpha=1 if label else 0.5)
                axes.fill_between(range(len(k)), low, high, color=f"C{i}", alpha=0.15)
                axes.set_xticks(range(len(k)), [f"{x:g}" for x in k])
        axes.set(xlabel="k: clean windows behind the poison", title=str(kind), ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("share of answers that follow the poison")
    figure.axes[0].legend(fontsize="small")
    save_figure(figure, path)
