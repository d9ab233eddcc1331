"""Totals over the trials that have ended."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sleep_lightning.frontier import Point
from sleep_lightning.sweep.point import point_key
from sleep_lightning.sweep.study import learning_curve, points


@dataclass(frozen=True)
class FinishedTrial:
    """A trial with a result: its values, its cost and its accuracy (means over its seeds)."""

    number: int
    values: Mapping[str, Any]
    point: Point


class Ledger:
    """Read from the study once, then extended as trials end, so that a long sweep costs as little as a short one.

    Args:
        trials: all of the study; those that have not ended are skipped.

    Attributes:
        counts: trials by final state: ``complete``, ``pruned``, ``failed``, ``infeasible``.
        flops_spent: training FLOPs of all ended trials, failed and pruned ones included.
        finished: those with a result.
        curves: their learning curves, to their ends.
        tried: number of the first trial run at each point (``point_key``), however it ended: training is
            deterministic, so another would end the same way.
    """

    def __init__(self, trials: Iterable[FrozenTrial]) -> None:
        self.counts: Counter[str] = Counter()
        self.flops_spent = 0.0
        self.finished: list[FinishedTrial] = []
        self.curves: list[list[Point]] = []
        self.tried: dict[str, int] = {}
        for trial in trials:
            if trial.state.is_finished():
                self.add(trial)

    @property
    def counted(self) -> int:
        """Trials that count against the budget: finished or pruned."""
        return self.counts["complete"] + self.counts["pruned"]

    def add(self, trial: FrozenTrial) -> None:
        """Add a trial that has ended."""
        facts = trial.user_attrs
        self.counts[_end(trial)] += 1
        self.flops_spent += facts.get("flops_spent", 0.0)
        if "values" in facts:
            self.tried.setdefault(point_key(facts["values"]), trial.number)
        if trial.state == TrialState.COMPLETE:
            self.finished.append(FinishedTrial(trial.number, facts["values"], points([trial])[0]))
            self.curves.append(learning_curve(trial))


def _end(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return "infeasible" if "infeasible" in trial.user_attrs else "failed"
    return trial.state.name.lower()
