"""The state of a sweep at one moment, for display, and its remaining time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sleep_lightning.runs.process import FitProcess
from sleep_lightning.runs.progress import RunProgress
from sleep_lightning.sweep.ledger import FinishedTrial
from sleep_lightning.sweep.spec import SweepSpec
from sleep_lightning.sweep.trial import Trial


@dataclass(frozen=True)
class RunningTrial:
    """A trial that is training.

    Attributes:
        number: of the trial.
        values: its point.
        run: which of its ``runs`` (one for each seed) is training, from 1; the first if several are.
        runs: number of its runs.
        progress: of this run.
        steps: total of this run.
        flops_spent: training FLOPs of all its runs so far.
        train_flops: of all its runs at their ends.
    """

    number: int
    values: Mapping[str, Any]
    run: int
    runs: int
    progress: RunProgress
    steps: int
    flops_spent: float
    train_flops: float

    @classmethod
    def of(cls, trial: Trial, run: FitProcess) -> "RunningTrial":
        progress = run.progress()
        since_validation = max(0.0, progress.train_flops - run.flops_spent)
        return cls(
            number=trial.number,
            values=trial.values,
            run=trial.runs.index(run) + 1,
            runs=len(trial.runs),
            progress=progress,
            steps=run.experiment.training.max_steps,
            flops_spent=trial.flops_spent() + since_validation,
            train_flops=trial.train_flops,
        )


@dataclass(frozen=True)
class Snapshot:
    """What a sweep has done and is doing.

    Attributes:
        running: trials that are training.
        ended: trials by final state: ``complete``, ``pruned``, ``failed``, ``infeasible``.
        waiting: trials that have yet to start: of a grid, or left by a supervisor that was killed.
        finished: trials with a result.
        ended_flops: training FLOPs of ended trials, failed and pruned ones included.
        seconds_left: until the budget's hours are used up; None without that limit.
    """

    running: tuple[RunningTrial, ...]
    ended: Mapping[str, int]
    waiting: int
    finished: tuple[FinishedTrial, ...]
    ended_flops: float
    seconds_left: float | None

    @property
    def flops_spent(self) -> float:
        """Training FLOPs of all trials, running ones included."""
        return self.ended_flops + sum(trial.flops_spent for trial in self.running)

    @property
    def counted(self) -> int:
        """Trials that count against the budget: finished or pruned."""
        return self.ended.get("complete", 0) + self.ended.get("pruned", 0)

    @property
    def states(self) -> dict[str, int]:
        """Trials by state."""
        ended = {name: self.ended.get(name, 0) for name in ("complete", "pruned", "failed", "infeasible")}
        return {"running": len(self.running)} | ended | {"waiting": self.waiting}


def predict_seconds(now: Snapshot, spec: SweepSpec, flops_per_second: float) -> float | None:
    """Seconds until the sweep is done; None while that is unknown.

    Running trials train to their ends. New ones start until the budget of trials, FLOPs or hours is used up, at the
    average cost of ended ones (pruned and failed ones included, so that what pruning saves counts; before any has
    ended, at the cost of the running ones).
    """
    to_begin = spec.budget.trials - now.counted - len(now.running)
    if spec.sampler == "grid":
        to_begin = min(to_begin, now.waiting)
    known = [now.ended_flops / now.counted] if now.counted else [trial.train_flops for trial in now.running]
    to_finish = sum(max(0.0, trial.train_flops - trial.flops_spent) for trial in now.running)
    if flops_per_second <= 0 or not known:
        return None
    new = max(0, to_begin) * sum(known) / len(known)
    if spec.budget.flops is not None:
        new = min(new, max(0.0, spec.budget.flops - now.flops_spent))
    begins = new / flops_per_second
    if now.seconds_left is not None:
        begins = min(begins, max(0.0, now.seconds_left))
    return begins + to_finish / flops_per_second
