"""A sweep's runs as cells of N and budget, for each slice of the answers."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean
from typing import Any

from sleep_lightning.sweep.finished_runs import FinishedRun
from sleep_lightning.sweep.iso_flop import Cell
from sleep_lightning.sweep.point import PASSES, TRAIN_FLOPS, point_key

ALL = "all"
"""Slice of all answers."""
SAME_BUDGET = 0.05
"""Training FLOPs that differ by this share at most are compared as equal."""


@dataclass(frozen=True)
class Selected:
    """The runs of an N at a budget.

    Attributes:
        n_passes: N.
        budget: training FLOPs.
        others: values of the other keys that vary, with which the mean loss of all answers was lowest.
        tried: how many such values there were to choose from.
        runs: by seed.
    """

    n_passes: int
    budget: float
    others: dict[str, Any]
    tried: int
    runs: tuple[FinishedRun, ...]


def select(runs: Iterable[FinishedRun]) -> list[Selected]:
    """By budget and N; of the other keys, the values with the lowest mean loss among those with the most seeds.

    Runs of a sweep without budgets that cost the same to ``SAME_BUDGET`` have one, that of the cheapest.

    Raises:
        ValueError: there is no run, or one without scores by slice.
    """
    groups: dict[tuple[float, int], dict[str, list[FinishedRun]]] = {}
    budget = 0.0
    for cost, run in sorted(((_cost(run), run) for run in runs), key=lambda one: one[0]):
        if ALL not in run.summary.get("slices", {}):
            raise ValueError(f"{run.directory.summary} has no scores by slice; remove it and resume the sweep")
        if TRAIN_FLOPS in run.values or cost > budget * (1 + SAME_BUDGET):
            budget = cost
        groups.setdefault((budget, run.n_passes), {}).setdefault(point_key(_others(run)), []).append(run)
    if not groups:
        raise ValueError("no run has finished yet")
    found = []
    for (cost, n_passes), by_others in sorted(groups.items()):
        most = max(map(len, by_others.values()))
        best = min((one for one in by_others.values() if len(one) == most), key=_loss)
        found.append(Selected(n_passes, cost, _others(best[0]), len(by_others), tuple(best)))
    return found


def _cost(run: FinishedRun) -> float:
    return float(run.values.get(TRAIN_FLOPS, run.summary["train_flops"]))


def _others(run: FinishedRun) -> dict[str, Any]:
    return {key: x for key, x in run.values.items() if key not in (TRAIN_FLOPS, PASSES)}


def _loss(runs: Iterable[FinishedRun]) -> float:
    return mean(float(run.summary["slices"][ALL]["loss"]) for run in runs)


def slices(selected: Iterable[Selected]) -> list[str]:
    """Those that all runs have, all answers first."""
    names = [list(run.summary["slices"]) for one in selected for run in one.runs]
    shared = [name for name in names[0] if all(name in other for other in names)]
    return [ALL, *(name for name in shared if name != ALL)]


def cells(selected: Iterable[Selected], name: str) -> list[Cell]:
    """Losses on a slice."""
    return [
        Cell(
            budget=one.budget,
            n_passes=one.n_passes,
            tokens=mean(float(run.summary["tokens"]) for run in one.runs),
            flops=mean(float(run.summary["train_flops"]) for run in one.runs),
            losses={run.seed: float(run.summary["slices"][name]["loss"]) for run in one.runs},
        )
        for one in selected
    ]
