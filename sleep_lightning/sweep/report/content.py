"""The results of a sweep so far, as plain data, read from its study and its run directories alone."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.formatting import with_unit
from sleep_lightning.runs.damage import read_json, reading
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import SUMMARY
from sleep_lightning.sweep.frontier import GrowingArea, Point, frontier, hypervolume
from sleep_lightning.sweep.measures import is_share, measured
from sleep_lightning.sweep.point import passes_of, point_key
from sleep_lightning.sweep.report.importances import importances
from sleep_lightning.sweep.settled import Seeded, frontier_shares
from sleep_lightning.sweep.space import written
from sleep_lightning.sweep.storage import JOURNAL, REMEDY
from sleep_lightning.sweep.study import FINGERPRINT, finished, read_study
from sleep_lightning.sweep.trial import run_path, seeds_by_trial

COSTS = {"train_flops": "FLOP", "wall_s": "s", "energy_j": "J", "peak_memory_bytes": "B", "step_memory_bytes": "B"}
"""Objectives that are costs, and their units."""
BASELINES = {
    "exact_match": {"majority answer": "majority_baseline", "uniform guess": "uniform_baseline"},
    "token_accuracy": {"majority answer": "majority_token_baseline"},
}
"""Scores without the evidence, by measure: keys of a run's ``summary.json``."""


@dataclass(frozen=True)
class Row:
    """A trial.

    Attributes:
        number: in its study.
        state: complete, pruned, failed, infeasible (never run), running or waiting.
        values: its point.
        train_flops: of all its runs, known before the first step; None if it was never run.
        result: means over seeds by measure; empty without a result.
        by_seed: each seed's result, by measure.
        curve: training FLOPs of one run and exact match at its validations, mean over seeds.
        flops_spent: training FLOPs of all its runs.
        further_seeds: runs since it had its first result.
        reason: why it was stopped or failed.
        ended: when.
    """

    number: int
    state: str
    values: dict[str, Any]
    train_flops: float | None
    result: dict[str, float]
    by_seed: dict[str, list[float]]
    curve: tuple[Point, ...]
    flops_spent: float
    reason: str
    ended: datetime | None
    further_seeds: int = 0

    def written(self) -> str:
        """Its point, for display."""
        return written(self.values)


@dataclass(frozen=True)
class Report:
    """A sweep's trials and what follows from them.

    Attributes:
        name: of the sweep.
        definition: space, objectives, seeds and base experiment.
        trials: all of them, by number.
        importances: by objective, the share of each key; empty while there are too few trials.
        baselines: scores in the value without the evidence, lowest and highest over the runs.
    """

    name: str
    definition: dict[str, Any]
    trials: tuple[Row, ...]
    importances: dict[str, dict[str, float]]
    baselines: dict[str, tuple[float, float]]

    @property
    def objectives(self) -> dict[str, str]:
        """Directions by measure."""
        return dict(self.definition["objectives"])

    @property
    def cost(self) -> str:
        """The cost: one of the objectives if there are several, else training FLOPs."""
        names = list(self.objectives)
        if len(names) == 1:
            return next(name for name in COSTS if name != names[0])
        lower = [name for name in names if self.objectives[name] == "minimize"]
        return next((name for name in COSTS if name in names), (lower or names)[-1])

    @property
    def value(self) -> str:
        """The value: the first objective that is not the cost."""
        return next(name for name in self.objectives if name != self.cost)

    @cached_property
    def finished(self) -> list[Row]:
        """Trials with a result that can be compared, in the order in which they ended."""
        done = [t for t in self.trials if t.result and all(map(math.isfinite, self._measured(t)))]
        return sorted(done, key=lambda t: (t.ended or datetime.min, t.number))

    @cached_property
    def best(self) -> list[Row]:
        """Several objectives: the Pareto frontier of cost and value, cheapest first. One: all, the best first."""
        if len(self.objectives) == 1:
            return sorted(self.finished, key=lambda t: (-self.as_point(t).value, t.result[self.cost], t.number))
        rows = sorted(self.finished, key=lambda t: t.number)
        return [rows[i] for i in frontier([self.as_point(t) for t in rows])]

    @cached_property
    def frontier_shares(self) -> dict[int, float]:
        """Share of resamples of the seeds in which a finished trial, by number, is on the frontier."""
        return dict(zip((t.number for t in self.finished), frontier_shares(self.seeded), strict=True))

    def sureness(self, trial: Row) -> tuple[str, str]:
        """Seeds of a finished trial, and the share of their resamples with it on the frontier: - for a seed each."""
        several = any(len(one.values) > 1 for one in self.seeded)
        return str(len(self._values(trial))), f"{self.frontier_shares[trial.number]:.0%}" if several else "-"

    @cached_property
    def seeded(self) -> list[Seeded]:
        """The finished trials with their seeds; of a single objective all cost the same, and the best one counts."""
        return [Seeded(self._cost_of(t), tuple(self._worth(x) for x in self._values(t))) for t in self.finished]

    def _values(self, trial: Row) -> list[float]:
        return trial.by_seed.get(self.value) or [trial.result[self.value]]

    def _cost_of(self, trial: Row) -> float:
        return self.as_point(trial).cost if len(self.objectives) > 1 else 0.0

    def best_within(self, max_flops: float | None) -> Row:
        """The trial with the highest value whose runs cost at most so many training FLOPs; of equal ones the cheapest.

        Raises:
            ValueError: there is none.
        """
        if not self.finished:
            raise ValueError(f"{self.name} has no finished trial yet; resume it with sweep resume")
        most = math.inf if max_flops is None else max_flops
        affordable = [t for t in self.finished if t.result["train_flops"] <= most]
        if not affordable:
            least = min(t.result["train_flops"] for t in self.finished)
            raise ValueError(f"--max-flops {most:.4g}: the cheapest finished trial took {least:.4g}; allow as much")
        return max(affordable, key=lambda t: (self.as_point(t).value, -t.result["train_flops"], -t.number))

    def as_point(self, trial: Row) -> Point:
        """Cost and value, both from 0 on: less cost is better, more value is better, whatever the directions."""
        cost, value = self._measured(trial)
        if self.objectives.get(self.cost) == "maximize":
            cost = self._most(self.cost) - cost
        return Point(cost, self._worth(value))

    def _worth(self, value: float) -> float:
        """A value of which more is better."""
        return self._most(self.value) - value if self.objectives[self.value] == "minimize" else value

    def gain(self, trials: Sequence[Row]) -> float:
        """Hypervolume of finished trials: the share that they dominate of the area below the largest cost of all
        finished trials and the largest value (of shares 1)."""
        points, whole = [self.as_point(t) for t in trials], self._whole_area
        return hypervolume(points, Point(self._most(self.cost), 0.0)) / whole if whole else 0.0

    def cost_text(self, cost: float) -> str:
        """A cost of this sweep with its unit."""
        return with_unit(cost, COSTS.get(self.cost, ""))

    @property
    def _whole_area(self) -> float:
        return self._most(self.cost) * self._most(self.value)

    @cached_property
    def progress(self) -> list[Point]:
        """FLOPs spent and value reached at the end of every trial: the hypervolume, or for a single objective the best
        value."""
        spent, points, several = 0.0, list[Point](), len(self.objectives) > 1
        whole, area = self._whole_area, GrowingArea(Point(self._most(self.cost), 0.0))
        finished, best = {t.number for t in self.finished}, None
        for trial in sorted((t for t in self.trials if t.ended and t.flops_spent), key=lambda t: (t.ended, t.number)):
            spent += trial.flops_spent
            if trial.number in finished:
                point = self.as_point(trial)
                area.add(point)
                if best is None or point.value > best[0].value:
                    best = point, trial.result[self.value]
            if several:
                points.append(Point(spent, area.area / whole if whole else 0.0))
            elif best is not None:
                points.append(Point(spent, best[1]))
        return points

    def n_passes(self, trial: Row) -> int:
        """N of a trial."""
        return self._n_passes[trial.number]

    @cached_property
    def _n_passes(self) -> dict[int, int]:
        """N by trial; an arm's takes an experiment to find out, which is made once for each point."""
        by_point: dict[str, int] = {}
        found: dict[int, int] = {}
        for trial in self.trials:
            key = point_key(trial.values)
            if key not in by_point:
                by_point[key] = passes_of(self._base, trial.values)
            found[trial.number] = by_point[key]
        return found

    @cached_property
    def _base(self) -> Experiment:
        return load_experiment(self.definition["base"], saved=True)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """All proposed N."""
        return tuple(sorted(set(self._n_passes.values())))

    @cached_property
    def states(self) -> Counter[str]:
        """Trials by state."""
        return Counter(t.state for t in self.trials)

    @property
    def flops_spent(self) -> float:
        """Training FLOPs of all ended trials, failed and pruned ones included."""
        return sum(t.flops_spent for t in self.trials)

    @property
    def flops_saved(self) -> float:
        """Training FLOPs that pruned trials did not spend."""
        return sum((t.train_flops or 0.0) - t.flops_spent for t in self.trials if t.state == "pruned")

    def _measured(self, trial: Row) -> tuple[float, float]:
        return trial.result[self.cost], trial.result[self.value]

    def _most(self, measure: str) -> float:
        return 1.0 if is_share(measure) else self._largest[measure]

    @cached_property
    def _largest(self) -> dict[str, float]:
        names = {*self.objectives, self.cost, self.value}
        return {name: max((t.result[name] for t in self.finished), default=0.0) for name in names}


def read_report(folder: Path) -> Report:
    """The report on a sweep's folder. Raises ValueError if it is not one, or cannot be read."""
    with reading(folder / JOURNAL, REMEDY):
        report = build_report(read_study(folder), folder)
        _ = report.best, report.depths, report.progress  # what is damaged is found now
    return report


def build_report(study: optuna.Study, folder: Path) -> Report:
    """The report on a study; the runs' summaries are in the folder."""
    definition = study.user_attrs[FINGERPRINT]
    seeds = seeds_by_trial(folder)
    summaries = {t.number: _summaries(folder, t.number, seeds.get(t.number, ())) for t in finished(study)}
    trials = tuple(_row(t, summaries.get(t.number, [])) for t in study.get_trials(deepcopy=False))
    report = Report(study.study_name, definition, trials, {}, {})
    baselines = {}
    for label, key in BASELINES.get(report.value, {}).items():
        if levels := [run[key] for runs in summaries.values() for run in runs if key in run]:
            baselines[label] = (min(levels), max(levels))
    return Report(study.study_name, definition, trials, importances(study, report.objectives), baselines)


def _summaries(folder: Path, number: int, seeds: Iterable[int]) -> list[dict[str, Any]]:
    found = []
    for seed in seeds:
        with suppress(FileNotFoundError):
            file = RunDirectory(run_path(folder, number, seed)).summary
            found.append(read_json(file, SUMMARY, "remove it: the report does without"))
    return [summary for summary in found if summary["status"] == "FINISHED"]


def _row(trial: FrozenTrial, summaries: list[dict[str, Any]]) -> Row:
    facts = trial.user_attrs
    state = "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
    result = facts.get("result", {})
    by_seed = {name: [x for run in summaries if (x := measured(run, name)) is not None] for name in result}
    recorded = facts.get("exact_match_by_seed", [])  # the run directories may be gone
    further = max(len(summaries) - len(recorded), 0) if recorded else 0
    if further:  # seeds since the trial was told
        result = {name: mean(values) for name, values in by_seed.items()}
    elif recorded:
        by_seed["exact_match"] = recorded
    return Row(
        number=trial.number,
        state="infeasible" if "infeasible" in facts else state,
        values=facts.get("values", dict(trial.params)),
        train_flops=facts.get("train_flops"),
        result=result,
        by_seed=by_seed,
        curve=tuple(Point(*point) for point in facts.get("curve", [])),
        flops_spent=facts.get("flops_spent", 0.0) + further * result.get("train_flops", 0.0),
        further_seeds=further,
        reason=next((facts[key] for key in ("infeasible", "pruned", "failed") if key in facts), ""),
        ended=trial.datetime_complete,
    )
