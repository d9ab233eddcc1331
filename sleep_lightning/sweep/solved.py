"""How many seeds solve a task at each point of a sweep: what a mean over seeds hides where learning comes in jumps."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan
from statistics import median_low
from typing import Any, Literal

from sleep_lightning.sweep.finished_runs import FinishedRun, LostRun
from sleep_lightning.sweep.point import point_key

SOLVED = 0.95
"""Exact match from which a seed has solved its task (docs/recipe.md)."""


End = Literal["finished", "diverged", "failed", "stopped"]


@dataclass(frozen=True)
class SeedResult:
    """A run of a point that has finished, or will not.

    Attributes:
        values: its point.
        seed: training seed.
        exact_match: of its final weights; NaN without.
        steps_to_solve: step of its first validation at the threshold; None if there is none.
        curve: step and exact match of every validation, that of the final weights included.
        end: how it ended.
        flops: training FLOPs up to each validation of the curve; empty where they are not known.
        majority: exact match of the majority answer; None without a validation.
    """

    values: dict[str, Any]
    seed: int
    exact_match: float
    steps_to_solve: int | None
    curve: tuple[tuple[int, float], ...]
    end: End = "finished"
    flops: tuple[float, ...] = ()
    majority: float | None = None

    @property
    def exact_over_flops(self) -> list[tuple[float, float]]:
        """Training FLOPs and exact match of the validations of which both are known."""
        return [(flops, exact) for flops, (_, exact) in zip(self.flops, self.curve, strict=False)]

    @property
    def counts(self) -> bool:
        """Whether it tells if its point is solved: what diverged would again; what was stopped or failed might have."""
        return self.end in ("finished", "diverged")


@dataclass(frozen=True)
class Solved:
    """A point: seeds that end at the threshold or above, of those that have finished or diverged.

    Attributes:
        values: the point.
        runs: of which, by seed.
        lost: other runs: stopped early, or failed.
        solved: seeds whose last validation is at the threshold.
        low, high: Wilson's 95% interval of their share.
        steps: median steps to solve; None if less than half of the seeds get there.
    """

    values: dict[str, Any]
    runs: tuple[SeedResult, ...]
    lost: tuple[SeedResult, ...]
    solved: int
    low: float
    high: float
    steps: int | None

    @property
    def share(self) -> float:
        """Solved, of the runs."""
        return self.solved / len(self.runs)

    def __str__(self) -> str:
        """``2 of 4, 1 diverged, 1 stopped``: those that diverged are among the four, those that were stopped not."""
        ends = Counter(run.end for run in (*self.runs, *self.lost) if run.end != "finished")
        return ", ".join([f"{self.solved} of {len(self.runs)}", *(f"{n} {end}" for end, n in sorted(ends.items()))])


def seed_results(runs: Iterable[FinishedRun | LostRun], threshold: float) -> list[SeedResult]:
    """What each run reached, in their order."""
    return [_seed_result(run, threshold) for run in runs]


def _seed_result(run: FinishedRun | LostRun, threshold: float) -> SeedResult:
    curve, exact = [(int(row["step"]), float(row["exact_match"])) for row in run.history], nan
    flops = [float(row["cost/train_flops"]) for row in run.history]
    if isinstance(run, FinishedRun):
        exact, steps = float(run.summary["exact_match"]), int(run.summary.get("steps", 0))
        if steps > (curve[-1][0] if curve else 0):  # earlier versions did not record the validation after the last step
            curve.append((steps, exact))
            flops.append(float(run.summary["train_flops"]))
    return SeedResult(
        run.values,
        run.seed,
        exact,
        next((step for step, value in curve if value >= threshold), None),
        tuple(curve),
        run.end if isinstance(run, LostRun) else "finished",
        tuple(flops),
        run.history[-1].get("majority_exact_match") if run.history else None,
    )


def solved(runs: Sequence[SeedResult], threshold: float) -> list[Solved]:
    """Shares by point, in the order of the runs; without those of which no run counts."""
    points: dict[str, list[SeedResult]] = {}
    for run in runs:
        points.setdefault(point_key(run.values), []).append(run)
    by_seed = (sorted(of_point, key=lambda run: run.seed) for of_point in points.values())
    return [_of_point(of_point, threshold) for of_point in by_seed if any(run.counts for run in of_point)]


def _of_point(of_point: Sequence[SeedResult], threshold: float) -> Solved:
    runs, lost = (tuple(run for run in of_point if run.counts == counts) for counts in (True, False))
    n = sum(run.exact_match >= threshold for run in runs)
    low, high = wilson(n, len(runs))
    middle = median_low([float("inf") if run.steps_to_solve is None else run.steps_to_solve for run in runs])
    return Solved(runs[0].values, runs, lost, n, low, high, None if middle == float("inf") else int(middle))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share. Raises ValueError for no trials."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def exact_text(value: float, threshold: float = SOLVED) -> str:
    """Three digits, or as many as tell it from the threshold: what is below it must not be shown as reached."""
    shown = (f"{value:.{digits}f}" for digits in range(3, 17))
    return next((text for text in shown if (float(text) >= threshold) == (value >= threshold)), "")


def as_csv(runs: Sequence[SeedResult]) -> str:
    """A row a run: its point, seed, last exact match (empty for one that did not finish), steps to solve, all its
    validations as ``step:exact``, and how it ended."""
    keys = list(dict.fromkeys(key for run in runs for key in run.values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, "seed", "exact_match", "steps_to_solve", "validations", "end"])
    for run in runs:
        curve = " ".join(f"{step}:{exact:.4f}" for step, exact in run.curve)
        point = [run.values.get(key, "") for key in keys]
        last = f"{run.exact_match:.4f}" if run.end == "finished" else ""
        writer.writerow([*point, run.seed, last, run.steps_to_solve or "", curve, run.end])
    return text.getvalue()
