"""Figures of the results. matplotlib is imported when the first one is drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from sleep_lightning.evidence.findings import DEPO, RULE110, STEPS, WANTED, Scores
from sleep_lightning.evidence.scores import ALL, RunScore
from sleep_lightning.evidence.throughput import Speed
from sleep_lightning.tracking.figures.picture import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_all(rows: Sequence[RunScore], speeds: Sequence[Speed], folder: Path) -> dict[str, str]:
    """Draw what there is data for (PNG); returns file names by section: ``rule110``, ``depo``, ``controls``,
    ``throughput``."""
    scores, drawn = Scores(rows), {}
    if scores.levels(STEPS) or scores.levels(RULE110):
        drawn["rule110"] = _rule110(scores, folder / "rule110.png")
    if scores.levels(DEPO):
        drawn["depo"] = _depo(scores, folder / "depo.png")
    if scores.levels(RULE110) or scores.levels(DEPO):
        drawn["controls"] = _controls(scores, folder / "controls.png")
    if speeds:
        drawn["throughput"] = _throughput(speeds, folder / "throughput.png")
    return drawn


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> str:
    save_figure(figure, path)
    return path.name


def _seeds(axes: "Axes", values: Mapping[str, Sequence[float]], color: str, label: str | None = None) -> None:
    """A line through the means and a small dot for each seed."""
    x = range(len(values))
    axes.plot(x, [mean(v) for v in values.values()], color=color, marker="o", label=label)
    for i, found in zip(x, values.values(), strict=True):
        axes.plot([i] * len(found), found, ".", color=color, alpha=0.5)
    axes.set_xticks(list(x), list(values))


def _baselines(axes: "Axes", rows: Sequence[RunScore]) -> None:
    for name, style in (("majority", "--"), ("uniform", ":")):
        level = mean(getattr(row, name) for row in rows)
        axes.axhline(level, color="grey", linestyle=style, label=f"{name} {level:.3f}")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)


def _rule110(s: Scores, path: Path) -> str:
    run = {sweep: name for sweep, name in ((STEPS, "t, N = 1"), (RULE110, "N, at t = 3")) if s.levels(sweep)}
    figure = _figure(4.5 * len(run), 4)
    panels = figure.subplots(1, len(run), sharey=True, squeeze=False)[0]
    for axes, (sweep, name) in zip(panels, run.items(), strict=True):
        levels = [level for level in s.levels(sweep) if level in WANTED[sweep]]
        by_level = {level.removeprefix("n"): s.of(sweep, level) for level in levels}
        _seeds(axes, by_level, "C0", "mean; dots are seeds")
        _baselines(axes, [row for level in s.levels(sweep) for row in s.select(sweep, level)])
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
        axes.set(xlabel=name, title="Rule 110")
    panels[0].set_ylabel("held-out exact match")
    return _save(figure, path)


def _depo(s: Scores, path: Path) -> str:
    """Accuracy and loss by hop, a line for each N."""
    figure = _figure(9, 4)
    accuracy, loss = figure.subplots(1, 2)
    hops = s.slices(DEPO)
    for i, arm in enumerate(arm for arm in WANTED[DEPO] if arm in s.levels(DEPO)):
        label = f"N = {arm.removeprefix('n')}"
        _seeds(accuracy, {h.rpartition("_")[2]: s.of(DEPO, arm, h) for h in hops}, f"C{i}", label)
        losses = {h.rpartition("_")[2]: [row.loss for row in s.select(DEPO, arm, h)] for h in hops}
        _seeds(loss, losses, f"C{i}", label)
    _baselines(accuracy, [row for arm in s.levels(DEPO) for row in s.select(DEPO, arm, ALL)])
    accuracy.set(xlabel="hops", ylabel="held-out exact match", title="Depo; dots are seeds")
    loss.set(xlabel="hops", ylabel="held-out loss, nats per label", title="Depo")
    loss.grid(alpha=0.3)
    accuracy.legend(fontsize="small")
    return _save(figure, path)


def _controls(s: Scores, path: Path) -> str:
    run = {task: sweep for task, sweep in (("Rule 110, t = 3", RULE110), ("Depo", DEPO)) if s.levels(sweep)}
    widths = [max(3, len(s.levels(sweep))) for sweep in run.values()]
    figure = _figure(1 + 1.2 * sum(widths), 4)
    panels = figure.subplots(1, len(run), width_ratios=widths, sharey=True, squeeze=False)[0]
    names = dict.fromkeys(level for sweep in run.values() for level in s.levels(sweep))
    colors = {level: f"C{i}" for i, level in enumerate(names)}  # an arm has one, whatever its place
    for axes, (task, sweep) in zip(panels, run.items(), strict=True):
        _arms(axes, s, sweep, colors)
        axes.set_title(f"{task}; dots are seeds, bars their means")
    panels[0].set_ylabel("held-out exact match")
    return _save(figure, path)


def _arms(axes: "Axes", s: Scores, sweep: str, colors: Mapping[str, str]) -> None:
    levels = s.levels(sweep)
    for i, level in enumerate(levels):
        found = s.of(sweep, level)
        axes.plot([i], [mean(found)], "_", color=colors[level], markersize=28, markeredgewidth=2)
        axes.plot([i] * len(found), found, "o", color=colors[level], alpha=0.6)
    flops = [s.select(sweep, level)[0].train_flops for level in levels]
    shown = [level.replace("n", "N = ") if level in WANTED[sweep] else level for level in levels]
    names = [f"{name}\n{x / 1e12:.1f} TFLOP" for name, x in zip(shown, flops, strict=True)]
    axes.set_xticks(range(len(levels)), names, fontsize="x-small")
    axes.set_xlim(-0.5, len(levels) - 0.5)
    _baselines(axes, [row for level in levels for row in s.select(sweep, level)])
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)


def _throughput(speeds: Sequence[Speed], path: Path) -> str:
    figure = _figure(9, 4)
    panels = figure.subplots(1, 2)
    titles = {"passes": "N (windows of 24)", "windows": "tokens in a window (N = 1)"}
    for axes, (question, title) in zip(panels, titles.items(), strict=True):
        found = [speed for speed in speeds if speed.question == question]
        found.sort(key=lambda speed: (speed.n_passes, speed.window_size))
        names = [str(x.n_passes if question == "passes" else x.window_size) for x in found]
        for i, (label, values) in enumerate(
            {"time": [x.times_slower for x in found], "FLOPs": [x.flops_ratio for x in found]}.items()
        ):
            axes.plot(names, values, marker="o", color=f"C{i}", label=label)
        axes.set(
            xlabel=title, ylabel="times that of " + ("N = 1" if question == "passes" else "all tokens in one window")
        )
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    return _save(figure, path)
