"""Figures of what an answer costs. matplotlib is imported when one is drawn."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sleep_lightning.frontier import Point, frontier
from sleep_lightning.tracking.figures.picture import save_figure
from sleep_lightning.tracking.figures.runs import Compared, draw_arms, flops_axis, tested_as_trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {
    "sleep": ("C0", "o-"),
    "loops": ("C1", "s--"),
    "deeper": ("C2", "D-."),
    "full": ("C3", "^-"),
    "retrieval": ("C4", "v:"),
    "compaction": ("C5", "P:"),
}
"""By the first word of a contender's name."""
Row = dict[str, Any]


def draw_session(rows: Sequence[Row], path: Path) -> None:
    """Milliseconds of an answer over tokens read and over N, sessions per GiB, Q* over N (PNG).

    Args:
        rows: of ``bench session``.
        path: file to write.
    """
    from matplotlib.figure import Figure

    answering = [row for row in rows if "contender" in row]
    even = [row for row in rows if "contender" not in row]
    reads, depths = (
        sorted({row["tokens_read"] for row in answering}),
        sorted({row["N"] for row in answering if row["N"]}),
    )
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    (over_tokens, over_passes), (room, questions) = figure.subplots(2, 2)
    for name, mine in _by(answering, lambda row: row["contender"]).items():
        if mine[0]["N"] in (None, depths[len(depths) // 2]):
            _line(over_tokens, mine, "tokens_read", "answer_p50_ms", name)
            _line(room, mine, "tokens_read", "sessions_per_gib", name)
    first = [row for row in answering if row["tokens_read"] == reads[0] and row["N"]]
    for name, mine in _by(first, lambda row: row["contender"].split()[0]).items():
        once = [row | {"contender": name} for row in first if row["contender"] == f"sleep N={depths[0]}"]
        _line(over_passes, mine if name == "sleep" else once + mine, "N", "answer_p50_ms", name)
    for key, style, label in (("break_even_by_ms", "o-", "milliseconds"), ("break_even_by_flops", "s--", "FLOPs")):
        x = [row["N"] for row in even if row[key]]
        questions.plot(x, [row[key] for row in even if row[key]], style, label=label)
    labels = (
        (over_tokens, "tokens read", "ms of an answer", "an answer over what was read"),
        (over_passes, "N", "ms of an answer", f"an answer over N, {reads[0]:,} tokens read"),
        (room, "tokens read", "sessions per GiB", "sessions per GiB (lines as above)"),
        (questions, "N", "questions", "Q*: questions from which a sleep is cheaper"),
    )
    for axes, x_label, y_label, title in labels:
        axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label, title=title)
        low, high = axes.get_ylim()
        axes.set_ylim(low / 1.5, high * 1.5)  # what is flat looks flat
        axes.grid(alpha=0.3)
        if axes is not room:
            axes.legend(fontsize="small")
    questions.set_yscale("linear")
    questions.set_ylim(bottom=0)
    for axes in (over_passes, questions):
        axes.set_xscale("log", base=2)
        axes.set_xticks(depths, [str(n) for n in depths])
    save_figure(figure, path)


def _by(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _line(axes: "Axes", rows: Sequence[Row], x: str, y: str, name: str) -> None:
    color, style = STYLES[name.split()[0]]
    known = [row for row in rows if row[y] is not None]
    axes.plot([row[x] for row in known], [row[y] for row in known], style, color=color, label=name)


class Served(Compared, Protocol):
    """With what an answer takes."""

    @property
    def answer_flops(self) -> int: ...
    @property
    def held_bytes(self) -> int: ...


def draw_serving(rows: Sequence[Served], path: Path, title: str) -> None:
    """Exact match over FLOPs of an answer and over bytes of a session, with the best for so much or less (PNG)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name, label in zip(
        panels,
        ("answer_flops", "held_bytes"),
        ("FLOPs from question to answer", "bytes of a session"),
        strict=True,
    ):
        placed = [(row, float(getattr(row, name))) for row in rows if tested_as_trained(row)]
        points = [Point(x, sum(row.exact_match) / len(row.exact_match)) for row, x in placed if x > 0]
        if not points:
            continue  # arms that keep nothing have no place on a logarithmic axis
        draw_arms(axes, placed)
        x, y = zip(*(points[i] for i in frontier(points)), strict=True)
        axes.step(x, y, where="post", color="black", linewidth=1, alpha=0.5, label="frontier")
        flops_axis(axes, label)
    panels[0].set_ylabel("test exact match")
    panels[1].legend(*panels[0].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title)
    save_figure(figure, path)
