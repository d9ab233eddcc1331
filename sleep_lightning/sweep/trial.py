"""One trial: a point of the space, trained with each seed, from ask to tell."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import mean
from typing import Any

from sleep_lightning.accuracy import Accuracy
from sleep_lightning.config import Override
from sleep_lightning.cost.run_flops import predict_flops
from sleep_lightning.frontier import Point
from sleep_lightning.runs.damage import IfThere, read_json
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.files import write_json
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.measures import BOUNDS, MEASURES, measured, text_of
from sleep_lightning.sweep.spec import Sweep

_RUN = re.compile(r"(\d{4,})-seed(\d+)", re.ASCII)
"""Name of the directory of a trial's run with a seed."""
DIVERGED_FILE = "diverged.json"
"""In the directory of a further seed that diverged."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A point to train.

    Attributes:
        number: of the trial in its study.
        values: the point.
        runs: one for each seed, in order.
        run_flops: training FLOPs of one whole run, known before its first step.
        reseeds: it has a result already, and its run is another seed.
        measures: what it is judged by, besides what every run reports.
    """

    number: int
    values: dict[str, Any]
    runs: tuple[FitProcess, ...]
    run_flops: float
    reseeds: bool = False
    measures: tuple[str, ...] = ()

    @property
    def train_flops(self) -> float:
        """Of all its runs."""
        return self.run_flops * len(self.runs)

    def next_run(self, at_work: Sequence[FitProcess] = ()) -> FitProcess | None:
        """The first run without a result that is not active; None if there is none."""
        return next((run for run in self.runs if run not in at_work and run.summary is None), None)

    def flops_spent(self) -> float:
        """Training FLOPs of its runs so far, as exact as ``FitProcess.flops_spent``."""
        return sum(run.flops_spent for run in self.runs)

    def result(self) -> dict[str, float]:
        """Means of the finished runs' measures over seeds; those that a run lacks are left out."""
        summaries = [summary for run in self.runs if (summary := run.summary)]
        found = {name: [measured(summary, name) for summary in summaries] for name in (*MEASURES, *self.measures)}
        return {name: mean(x for x in values if x is not None) for name, values in found.items() if None not in values}

    def written(self, measures: Iterable[str]) -> str:
        """These measures of the finished runs, for display: exact match beside its error and its baselines."""
        shown = {name: text_of(name, value) for name, value in self.result().items()}
        exact = Accuracy.mean([Accuracy.of_summary(summary) for run in self.runs if (summary := run.summary)])
        shown["exact_match"] = str(exact)
        return ", ".join(f"{name} {shown[name]}" for name in measures)

    def spread(self) -> list[float]:
        """Exact match by seed."""
        return [float(summary["exact_match"]) for run in self.runs if (summary := run.summary)]


def build_trial(sweep: Sweep, number: int, values: dict[str, Any], folder: Path, *more: Override) -> Trial:
    """The runs of a point.

    Raises:
        ValueError: incompatible values.
    """
    runs = []
    for seed in sweep.spec.seeds:
        path = run_path(folder, number, seed)
        own = {"training.seed": seed, "training.run_dir": str(path), "training.threads": sweep.spec.threads}
        runs.append(FitProcess(sweep.experiment(values, *own.items(), *more), RunDirectory(path)))
    flops = predict_flops(runs[0].experiment)
    judged = (*sweep.spec.objectives, *(name for name in sweep.spec.constraints if name not in BOUNDS))
    return Trial(number, values, tuple(runs), flops, measures=judged)


def build_feasible(sweep: Sweep, number: int, values: dict[str, Any], folder: Path, *more: Override) -> Trial:
    """The same of a point that is about to be trained.

    Raises:
        ValueError: incompatible values, or a violated bound.
    """
    trial = build_trial(sweep, number, values, folder, *more)
    if (reason := sweep.why_infeasible(trial.runs[0].experiment, trial.run_flops)) is not None:
        raise ValueError(reason)
    return trial


def run_path(folder: Path, number: int, seed: int) -> Path:
    """Directory of a trial's run with a seed."""
    return runs_path(folder) / f"{number:04d}-seed{seed}"


def mark_diverged(run: RunDirectory, reason: str, flops_spent: float) -> None:
    """Note that a further seed of a trial that has ended diverged, and what it took up to its last validation, of which
    its study cannot be told any more. Raises OSError."""
    write_json(run.path / DIVERGED_FILE, {"reason": reason, "flops_spent": flops_spent})


def is_marked_diverged(run: RunDirectory) -> bool:
    """Whether ``mark_diverged`` has been called for it."""
    return (run.path / DIVERGED_FILE).exists()


def diverged_flops(folder: Path, number: int, seeds: Iterable[int]) -> list[float]:
    """What those of a trial's seeds took up to their last validation that are marked as diverged; 0 where an earlier
    version did not record it. Raises DamagedFile."""
    runs = [RunDirectory(run_path(folder, number, seed)) for seed in seeds]
    marks = [
        read_json(run.path / DIVERGED_FILE, IfThere(flops_spent=(int, float)), "remove it: that seed is trained again")
        for run in runs
        if is_marked_diverged(run)
    ]
    return [float(mark.get("flops_spent", 0.0)) for mark in marks]


def seeds_by_trial(folder: Path) -> dict[int, list[int]]:
    """Seeds that have a directory, in order, by trial: one look at the folder for all trials."""
    found: dict[int, list[int]] = {}
    try:
        with os.scandir(runs_path(folder)) as entries:
            for entry in entries:
                if (name := _RUN.fullmatch(entry.name)) is not None and entry.is_dir():
                    found.setdefault(int(name[1]), []).append(int(name[2]))
    except FileNotFoundError:  # none has been trained
        return {}
    return {number: sorted(seeds) for number, seeds in found.items()}


def runs_path(folder: Path) -> Path:
    """Folder of the runs of all trials."""
    return folder / "trials"


def curve_of(run: FitProcess) -> list[Point]:
    """The run's validations: training FLOPs so far, exact match."""
    return [Point(row["cost/train_flops"], row["exact_match"]) for row in run.history]


def mean_curve(runs: Sequence[FitProcess]) -> list[Point]:
    """Mean over runs, as long as all validate at the same FLOPs: a callback may end some of them earlier."""
    together = zip(*filter(None, map(curve_of, runs)), strict=False)
    same = takewhile(lambda points: len({point.cost for point in points}) == 1, together)
    return [Point(points[0].cost, mean(point.value for point in points)) for points in same]


def with_tracking(sweep: Sweep, parent_run_id: str | None) -> list[Override]:
    """Overrides that put a trial's runs under the sweep's MLflow run, and have them train while MLflow is away."""
    own: list[Override] = [sweep.base.uri_override(), ("tracking.parent_run_id", parent_run_id)]
    return [*own, ("tracking.required", False)]
