"""The live view of a running sweep."""

from dataclasses import dataclass, field
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sleep_lightning.cli.terminal_plot import plot_frontier
from sleep_lightning.formatting import in_flop, in_flop_of, in_minutes
from sleep_lightning.names import printable
from sleep_lightning.sweep.frontier import Point, dominated_share
from sleep_lightning.sweep.point import passes_of
from sleep_lightning.sweep.snapshot import Snapshot, predict_seconds
from sleep_lightning.sweep.space import written
from sleep_lightning.sweep.spec import Sweep

STYLES = {"running": "cyan", "complete": "green", "pruned": "yellow", "failed": "red", "infeasible": "", "waiting": ""}
LOWEST_PLOT, HIGHEST_PLOT = 8, 16
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
        return f"{now.counted}/{self.sweep.spec.budget.trials} trials: {states}; {self._sums(now, pace)}"

    def draw(self, now: Snapshot, pace: Pace, console: Console) -> RenderableType:
        """Fits the terminal: without room the plot is dropped first, then the running trials."""
        states = Text("  ").join(
            Text(f"{count} {name}", style=STYLES[name] if count else "dim") for name, count in now.states.items()
        )
        states.no_wrap, states.overflow = True, "ellipsis"
        sums = Text(self._sums(now, pace), no_wrap=True, overflow="ellipsis")
        parts: list[RenderableType] = [self._header(now), states, sums]
        room = console.height - EVENT_LINES - len(parts)
        if now.running:
            table = _running(now)
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


def _running(now: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("trial", justify="right", no_wrap=True)
    for name in ("step", "exact", "training"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("point", overflow="fold")
    for trial in now.running:
        number = str(trial.number) + (f" ({trial.run}/{trial.runs})" if trial.runs > 1 else "")
        exact = "-" if trial.exact_match is None else f"{trial.exact_match:.3f}"
        flops = in_flop_of(trial.flops_spent, trial.train_flops)
        table.add_row(number, f"{trial.step}/{trial.steps}", exact, flops, Text(printable(written(trial.values))))
    return table
