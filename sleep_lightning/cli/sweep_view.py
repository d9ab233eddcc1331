"""The live view of a running sweep."""

from dataclasses import dataclass, field
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sleep_lightning.accuracy import with_error
from sleep_lightning.cli.terminal_plot import plot_frontier
from sleep_lightning.formatting import in_flop, in_flop_of, in_minutes, with_unit
from sleep_lightning.frontier import Point, dominated_share
from sleep_lightning.names import printable
from sleep_lightning.sweep.point import passes_of
from sleep_lightning.sweep.snapshot import Snapshot, predict_seconds
from sleep_lightning.sweep.space import written
from sleep_lightning.sweep.spec import Sweep

STYLES = {"running": "cyan", "complete": "green", "pruned": "yellow", "failed": "red", "infeasible": "", "waiting": ""}
LOWEST_PLOT, HIGHEST_PLOT = 8, 16
COLUMNS = {"step": 0, "loss": 90, "exact": 0, "tokens/s": 100, "training": 0}
"""Of a running trial, each with the least width of a terminal that has room for it."""
WITH_ERROR = 70
"""The least width for standard errors."""
STATUS_TRIALS = 4
"""Running trials that a status line names."""
EVENT_LINES = 5
"""Lines of the terminal left for the last events, which scroll above the view."""


@dataclass(frozen=True)
class Pace:
    """Progress of this session: seconds, and training FLOPs of all its runs."""

    seconds: float
    flops: float

    @property
    def flops_per_second(self) -> float:
        return self.flops / self.seconds if self.seconds > 0 else 0.0


@dataclass
class SweepView:
    """Draws snapshots of one sweep."""

    sweep: Sweep
    _plotted: tuple[int, int, int] | None = field(default=None, init=False)
    _plot: Text = field(default_factory=Text, init=False)

    def status(self, now: Snapshot, pace: Pace) -> str:
        """One line for a log."""
        states = ", ".join(f"{count} {name}" for name, count in now.states.items() if count)
        said = f"{now.counted}/{self.sweep.spec.budget.trials} trials: {states}; {self._sums(now, pace)}"
        at = [f"{t.number} at step {t.progress.step}/{t.steps}" for t in now.running[:STATUS_TRIALS]]
        more = ["..."] if len(now.running) > STATUS_TRIALS else []
        return "; ".join(filter(None, (said, ", ".join(at + more), baselines_line(now))))

    def draw(self, now: Snapshot, pace: Pace, console: Console) -> RenderableType:
        """Fits the terminal: without room the plot is dropped first, then the running trials."""
        states = Text("  ").join(
            Text(f"{count} {name}", style=STYLES[name] if count else "dim") for name, count in now.states.items()
        )
        states.no_wrap, states.overflow = True, "ellipsis"
        sums = Text(self._sums(now, pace), no_wrap=True, overflow="ellipsis")
        parts: list[RenderableType] = [self._header(now), states, sums]
        if line := baselines_line(now):
            parts.append(Text(line, no_wrap=True, overflow="ellipsis"))
        room = console.height - EVENT_LINES - len(parts)
        if now.running:
            table = _running(now, console.width)
            lines = len(console.render_lines(table))
            if lines <= room:
                parts.append(table)
                room -= lines
        if now.finished and room >= LOWEST_PLOT:
            parts.append(self._frontier(now, console.width, min(room, HIGHEST_PLOT)))
        return Group(*parts)

    def _header(self, now: Snapshot) -> Table:
        spec = self.sweep.spec
        header = Table.grid(padding=(0, 1), expand=True)
        header.add_column(no_wrap=True, max_width=40)
        header.add_column(ratio=1)
        header.add_column(no_wrap=True)
        bar = ProgressBar(total=spec.budget.trials, completed=min(now.counted, spec.budget.trials))
        header.add_row(Text(spec.name, style="bold"), bar, f"{now.counted}/{spec.budget.trials} trials")
        return header

    def _sums(self, now: Snapshot, pace: Pace) -> str:
        most = self.sweep.spec.budget.flops
        spent = in_flop(now.flops_spent) if most is None else in_flop_of(now.flops_spent, most)
        left = predict_seconds(now, self.sweep.spec, pace.flops_per_second)
        area = f"{dominated_share([t.point for t in now.finished]):.3f}" if now.finished else "-"
        eta, elapsed = "-" if left is None else in_minutes(left), timedelta(seconds=int(pace.seconds))
        return f"{spent}, hypervolume {area}, {elapsed} elapsed, ETA {eta}"

    def _frontier(self, now: Snapshot, width: int, height: int) -> Text:
        """Redrawn only when a trial has finished, or the terminal's size has changed."""
        wanted = (len(now.finished), width, height)
        if wanted != self._plotted:
            by_passes: dict[int, list[Point]] = {}
            for trial in now.finished:
                passes = passes_of(self.sweep.base, trial.values)
                by_passes.setdefault(passes, []).append(trial.point)
            self._plot, self._plotted = plot_frontier(by_passes, width, height), wanted
        return self._plot


def baselines_line(now: Snapshot) -> str:
    """What answers without the evidence score in the trials that train, and whether nothing beats the majority answer;
    "" before the first validation."""
    accuracies = [t.progress.accuracy for t in now.running if t.progress.accuracy is not None]
    majority = [one.majority for one in accuracies if one.majority is not None]
    uniform = [one.uniform for one in accuracies if one.uniform is not None]
    shown = [f"{name} {_span(values)}" for name, values in (("majority", majority), ("uniform", uniform)) if values]
    if majority and now.finished and max(trial.point.value for trial in now.finished) <= min(majority):
        shown.append("nothing beats the majority answer yet")
    return ", ".join(shown)


def _span(values: list[float]) -> str:
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"


def _running(now: Snapshot, width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("trial", justify="right", no_wrap=True)
    names = [name for name, least in COLUMNS.items() if width >= least]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("point", overflow="fold")
    for trial in now.running:
        number = str(trial.number) + (f" ({trial.run}/{trial.runs})" if trial.runs > 1 else "")
        now_at = trial.progress
        exact = now_at.accuracy
        answers = None if exact is None or width < WITH_ERROR else exact.answers
        cells = {
            "step": f"{now_at.step}/{trial.steps}",
            "loss": "-" if now_at.loss is None else f"{now_at.loss:.3f}",
            "exact": "-" if exact is None else with_error(exact.exact_match, answers),
            "tokens/s": "-" if now_at.tokens_per_s is None else with_unit(now_at.tokens_per_s),
            "training": in_flop_of(trial.flops_spent, trial.train_flops),
        }
        table.add_row(number, *(cells[name] for name in names), Text(printable(written(trial.values))))
    return table
