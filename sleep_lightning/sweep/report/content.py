"""The results of a sweep so far, as plain data, read from its study and its run directories alone."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.frontier import GrowingArea, Point, frontier, hypervolume
from sleep_lightning.runs.damage import reading
from sleep_lightning.sweep.measures import COSTS, is_share, text_of
from sleep_lightning.sweep.point import passes_of, point_key
from sleep_lightning.sweep.report.importances import importances
from sleep_lightning.sweep.report.origin import Origin
from sleep_lightning.sweep.report.rows import Row, read_summaries, row_of
from sleep_lightning.sweep.settled import Seeded, frontier_intervals, frontier_shares
from sleep_lightning.sweep.storage import JOURNAL, REMEDY, saved_spec
from sleep_lightning.sweep.study import FINGERPRINT, finished, read_study
from sleep_lightning.sweep.trial import diverged_flops, seeds_by_trial

NAMES = {
    "train_flops": "training FLOPs",
    "wall_s": "wall time",
    "energy_j": "energy",
    "tokens_per_s": "tokens/s in training",
    "peak_memory_bytes": "peak memory",
    "step_memory_bytes": "memory of a step",
}
"""Measures whose names are not words."""
BASELINES = {
    "exact_match": {"majority answer": "majority_baseline", "uniform guess": "uniform_baseline"},
    "token_accuracy": {"majority answer": "majority_token_baseline"},
}
"""Scores without the evidence, by measure: keys of a run's ``summary.json``."""


@dataclass(frozen=True)
class Report:
    """A sweep's trials and what follows from them.

    Attributes:
        name: of the sweep.
        definition: space, objectives, seeds and base experiment.
        trials: all of them, by number.
        baselines: scores in the value without the evidence, lowest and highest over the runs.
        origin: where and when it ran, and how it was asked for.
        study: of the trials.
    """

    name: str
    definition: dict[str, Any]
    trials: tuple[Row, ...]
    baselines: dict[str, tuple[float, float]]
    origin: Origin
    study: optuna.Study = field(repr=False, compare=False)

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
    def importances(self) -> dict[str, dict[str, float]]:
        """By objective, the share of each key; empty while there are too few trials. The first time takes seconds."""
        return importances(self.study, self.objectives)

    @cached_property
    def frontier_shares(self) -> dict[int, float]:
        """Share of resamples of the seeds in which a finished trial, by number, is on the frontier."""
        return dict(zip((t.number for t in self.finished), frontier_shares(self.seeded), strict=True))

    def sureness(self, trial: Row) -> tuple[str, str]:
        """Seeds of a finished trial, and the share of their resamples with it on the frontier: - for a single one."""
        share, diverged = self.frontier_share(trial), f", {trial.diverged} diverged" if trial.diverged else ""
        return f"{self.seeds(trial)}{diverged}", "-" if share is None else f"{share:.0%}"

    def frontier_share(self, trial: Row) -> float | None:
        """Of ``frontier_shares``; None for a single seed, which has no resamples."""
        return self.frontier_shares[trial.number] if len(self._values(trial)) > 1 else None

    @cached_property
    def frontier_intervals(self) -> list[tuple[float, float]]:
        """95% interval of the best mean at the cost of each point of the frontier or less (of shares, within 0 and 1);
        empty for a single objective, and as long as no point has two seeds."""
        if len(self.objectives) == 1:
            return []
        found = frontier_intervals(self.seeded, [self._cost_of(t) for t in self.best])
        if self.objectives[self.value] == "minimize":
            found = [(self._worth(high), self._worth(low)) for low, high in found]  # its own inverse
        return [(max(low, 0.0), min(high, 1.0)) for low, high in found] if is_share(self.value) else found

    def seeds(self, trial: Row) -> int:
        """Those of a finished trial, with those that diverged: of a measure that is no share they have no value."""
        return len(self._values(trial)) + (0 if is_share(self.value) else trial.diverged)

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
            raise ValueError(f"{self.name} has no finished trial yet; go on with: sweep resume NAME")
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

    def text(self, measure: str, value: float) -> str:
        """A result, with its unit."""
        return text_of(measure, value)

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

    def run_flops(self, trial: Row) -> float | None:
        """Training FLOPs of one run of a trial: of those that finished, else as planned; None if it was never run."""
        planned = None if trial.train_flops is None else trial.train_flops / len(self.definition["seeds"])
        return trial.result.get("train_flops", planned)

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


def in_words(measure: str) -> str:
    """Its name for display."""
    return NAMES.get(measure, measure.replace("_", " "))


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
    summaries = {t.number: read_summaries(folder, t.number, seeds.get(t.number, ())) for t in finished(study)}
    diverged = {
        n: diverged_flops(folder, n, set(seeds.get(n, ())) - set(of_trial)) for n, of_trial in summaries.items()
    }
    trials = tuple(
        row_of(t, seeds.get(t.number, ()), summaries.get(t.number, {}), diverged.get(t.number, ()))
        for t in study.get_trials(deepcopy=False)
    )
    runs = [run for by_seed in summaries.values() for run in by_seed.values()]
    report = Report(study.study_name, definition, trials, {}, Origin.of(trials, runs, saved_spec(folder), study), study)
    baselines = {}
    for label, key in BASELINES.get(report.value, {}).items():
        if levels := [run[key] for run in runs if key in run]:
            baselines[label] = (min(levels), max(levels))
    return replace(report, baselines=baselines)
