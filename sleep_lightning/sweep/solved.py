"""How many seeds solve a task at each point of a sweep: what a mean over seeds hides where learning comes in jumps."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from sleep_lightning.sweep.finished_runs import FinishedRun
from sleep_lightning.sweep.point import point_key

SOLVED = 0.95
"""Exact match from which a seed has solved its task (docs/recipe.md)."""


@dataclass(frozen=True)
class SeedResult:
    """A finished run of a point.

    Attributes:
        values: its point.
        seed: training seed.
        exact_match: at its last validation.
        steps_to_solve: step of its first validation at the threshold; None if there is none.
        curve: step and exact match of every validation.
    """

    values: dict[str, Any]
    seed: int
    exact_match: float
    steps_to_solve: int | None
    curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Solved:
    """A point: seeds that end at the threshold or above, of those that have finished.

    Attributes:
        values: the point.
        runs: by seed.
        solved: seeds whose last validation is at the threshold.
        low, high: Wilson's 95% interval of their share.
        steps: median steps to solve; None if less than half of the seeds get there.
    """

    values: dict[str, Any]
    runs: tuple[SeedResult, ...]
    solved: int
    low: float
    high: float
    steps: int | None


def seed_results(runs: Iterable[FinishedRun], threshold: float) -> list[SeedResult]:
    """What each run reached, in their order."""
    return [_seed_result(run, threshold) for run in runs]


def _seed_result(run: FinishedRun, threshold: float) -> SeedResult:
    curve = tuple((int(row["step"]), float(row["exact_match"])) for row in run.history)
    reached = next((step for step, exact in curve if exact >= threshold), None)
    return SeedResult(run.values, run.seed, float(run.summary["exact_match"]), reached, curve)


def solved(runs: Sequence[SeedResult], threshold: float) -> list[Solved]:
    """Shares by point, in the order of the runs."""
    points: dict[str, list[SeedResult]] = {}
    for run in runs:
        points.setdefault(point_key(run.values), []).append(run)
    return [_of_point(of_point, threshold) for of_point in points.values()]


def _of_point(runs: Sequence[SeedResult], threshold: float) -> Solved:
    n = sum(run.exact_match >= threshold for run in runs)
    low, high = wilson(n, len(runs))
    middle = median_low([float("inf") if run.steps_to_solve is None else run.steps_to_solve for run in runs])
    return Solved(runs[0].values, tuple(runs), n, low, high, None if middle == float("inf") else int(middle))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share. Raises ValueError for no trials."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def as_csv(runs: Sequence[SeedResult]) -> str:
    """A row a run: its point, seed, last exact match, steps to solve, and all its validations as ``step:exact``."""
    keys = list(dict.fromkeys(key for run in runs for key in run.values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, "seed", "exact_match", "steps_to_solve", "validations"])
    for run in runs:
        curve = " ".join(f"{step}:{exact:.4f}" for step, exact in run.curve)
        point = [run.values.get(key, "") for key in keys]
        writer.writerow([*point, run.seed, f"{run.exact_match:.4f}", run.steps_to_solve or "", curve])
    return text.getvalue()
