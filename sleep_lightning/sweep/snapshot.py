"""A sweep at one moment, for who shows it, and when it will be done."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.ledger import FinishedTrial
from sleep_lightning.sweep.spec import SweepSpec
from sleep_lightning.sweep.trial import Trial


@dataclass(frozen=True)
class RunningTrial:
    """A trial that is being trained, as of its last validation.

    Attributes:
        number: of the trial.
        values: its point.
        run: which of its ``runs`` (one for each seed) is being trained, from 1; the first of those where several are.
        runs: how many it has.
        step: steps of this run at its last validation.
        steps: it will take.
        exact_match: at its last validation; None before the first.
        flops_spent: training FLOPs of all its runs so far.
        train_flops: of all its runs when done.
    """

    number: int
    values: Mapping[str, Any]
    run: int
    runs: int
    step: int
    steps: int
    exact_match: float | None
    flops_spent: float
    train_flops: float

    @classmethod
    def of(cls, trial: Trial, run: FitProcess) -> "RunningTrial":
        last = run.history[-1] if run.history else None
        return cls(
            number=trial.number,
            values=trial.values,
            run=trial.runs.index(run) + 1,
            runs=len(trial.runs),
            step=0 if last is None else int(last["step"]),
            steps=run.experiment.training.max_steps,
            exact_match=None if last is None else last["exact_match"],
            flops_spent=trial.flops_spent(),
            train_flops=trial.train_flops,
        )


@dataclass(frozen=True)
class Snapshot:
    """What a sweep has done and is doing.

    Attributes:
        running: trials being trained.
        ended: trials by how they ended: ``complete``, ``pruned``, ``failed``, ``infeasible``.
        waiting: trials of a grid, or taken over from a supervisor that was killed, that have yet to begin.
        finished: trials with a result.
        ended_flops: training FLOPs of trials that have ended, failed and pruned ones too.
        seconds_left: until the budget's hours are out; None without that limit.
    """

    running: tuple[RunningTrial, ...]
    ended: Mapping[str, int]
    waiting: int
    finished: tuple[FinishedTrial, ...]
    ended_flops: float
    seconds_left: float | None

    @property
    def flops_spent(self) -> float:
        """Training FLOPs of all trials, the running ones' included."""
        return self.ended_flops + sum(trial.flops_spent for trial in self.running)

    @property
    def counted(self) -> int:
        """Trials that use up the budget: finished or pruned."""
        return self.ended.get("complete", 0) + self.ended.get("pruned", 0)

    @property
    def states(self) -> dict[str, int]:
        """Trials by state."""
        ended = {name: self.ended.get(name, 0) for name in ("complete", "pruned", "failed", "infeasible")}
        return {"running": len(self.running)} | ended | {"waiting": self.waiting}


def predict_seconds(now: Snapshot, spec: SweepSpec, flops_per_second: float) -> float | None:
    """Seconds until the sweep is done; None while that is unknown.

    The running trials go on to their end; new ones cost what those that ended did on average (pruned and failed ones
    included, so what pruning saves is in it; before any ended, what the running ones will), and begin until the
    budget of trials, FLOPs or hours is out.

    Args:
        now: the sweep.
        spec: its budget.
        flops_per_second: of all its workers together, as measured.
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
