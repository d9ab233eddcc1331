"""Loss over N at equal training FLOPs: runs of a budget train with different N, each for as many steps as it buys.

``N*(C)`` is the minimum of a parabola in log N, as Chinchilla's second approach finds the best size (arXiv:2203.15556,
3.2), but through the lowest mean loss and its neighbours alone: losses far from it are no parabola, and would move it.
Intervals are percentiles over resampled seeds (``bootstrap``); runs of a seed see the same data and are drawn together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf, isinf, isnan, nan

import numpy as np
from numpy.typing import NDArray

from sleep_lightning.sweep.bootstrap import Array, Resamples

RESAMPLES = 2000
ROUNDING = 1e-9
"""Losses that differ by this share are equal."""


@dataclass(frozen=True)
class Cell:
    """The runs of an N at a budget.

    Attributes:
        budget: training FLOPs, as asked for.
        n_passes: N.
        tokens: of a run.
        flops: of a run.
        losses: by seed, in nats per label.
    """

    budget: float
    n_passes: int
    tokens: float
    flops: float
    losses: Mapping[int, float]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval over seeds, unbounded for a single seed; NaN if it is not determined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if isnan(self.value):
            return "not determined"
        return f"{self.value:.2f}" if isinf(self.low) else f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Curve:
    """A budget: mean losses by N, and their minimum.

    Attributes:
        budget: training FLOPs.
        losses: mean over seeds, by N.
        best: ``N*``; NaN if the losses do not determine it.
        at_edge: the minimum is the smallest or largest N that was run: the true one may lie beyond.
        wins: share of the resamples in which an N has the lowest mean; equal ones share theirs.
    """

    budget: float
    losses: Mapping[int, float]
    best: Estimate
    at_edge: bool
    wins: Mapping[int, float]


class Seeds:
    """The losses of cells, by the seeds that have finished in all of them.

    Attributes:
        losses: ``[cells, seeds]``.
        resampled: means over seeds drawn with replacement, ``[cells, resamples]``.
        chances: of the resamples.

    Raises:
        ValueError: no seed has finished everywhere.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        shared = sorted(set.intersection(*(set(cell.losses) for cell in cells)))
        if not shared:
            raise ValueError("no seed has finished at every N and budget yet")
        self.losses: Array = np.array([[cell.losses[seed] for seed in shared] for cell in cells])
        self._resamples = Resamples.of(len(shared), RESAMPLES)
        with np.errstate(invalid="ignore"):  # an infinite loss makes its cell's NaN
            self.resampled: Array = self.losses @ self._resamples.weights.T
        self.chances = self._resamples.chances

    @property
    def count(self) -> int:
        """How many they are."""
        return self.losses.shape[1]

    @property
    def means(self) -> Array:
        """Over seeds, ``[cells]``."""
        return np.asarray(self.losses.mean(1))

    def estimate(self, value: float, resamples: Array) -> Estimate:
        """A value and what it is in the first resamples."""
        if self.count == 1 or isnan(value):
            return Estimate(value, -inf, inf)
        return Estimate(value, *self._resamples.interval(resamples))


def curves(cells: Sequence[Cell], seeds: Seeds) -> tuple[list[Curve], Estimate | None]:
    """A curve for each budget with three N or more, the smallest first; and a of ``N* ~ C^a``.

    The exponent is None for fewer than three curves, or if a minimum lies at the edge or is not determined.
    """
    found, minima = [], []
    order = sorted(range(len(cells)), key=lambda i: (cells[i].budget, cells[i].n_passes))
    for budget, of_budget in groupby(order, key=lambda i: cells[i].budget):
        rows = list(of_budget)
        depths = np.array([cells[i].n_passes for i in rows])
        if len(rows) < 3:
            continue
        means, resampled = seeds.means[rows], seeds.resampled[rows]
        best = minimum(depths, means)
        others = np.array([minimum(depths, column) for column in resampled.T])
        least = lowest(resampled)
        shares = least / np.maximum(least.sum(0), 1) @ seeds.chances
        wins = dict(zip(map(int, depths), shares.tolist(), strict=True))
        by_depth = {int(n): float(loss) for n, loss in zip(depths, means, strict=True)}
        found.append(Curve(budget, by_depth, seeds.estimate(best, others), best in (depths[0], depths[-1]), wins))
        minima.append(others)
    if len(found) < 3 or any(curve.at_edge or isnan(curve.best.value) for curve in found):
        return found, None
    log_budgets = np.log([curve.budget for curve in found])
    exponent = slope(log_budgets, np.log([curve.best.value for curve in found]))
    return found, seeds.estimate(
        exponent, np.array([slope(log_budgets, np.log(column)) for column in np.array(minima).T])
    )


def minimum(depths: NDArray[np.int64], losses: Array) -> float:
    """``N*``: of the parabola in log N through the lowest loss and its two neighbours, next to which it lies; the first
    or last N if its loss is the lowest.

    Returns:
        NaN, as nothing determines it, if a loss is not finite, or the lowest is that of two N that are no neighbours.
    """
    if not np.isfinite(losses).all():
        return nan
    tied = np.flatnonzero(lowest(losses))
    if tied[-1] - tied[0] > 1:
        return nan
    i = int(tied[0] or tied[-1])  # of two neighbours the one with a loss on both sides
    if i in (0, len(depths) - 1):
        return float(depths[i])
    x = np.log(depths[i - 1 : i + 2])
    middles, slopes = (x[:-1] + x[1:]) / 2, np.diff(losses[i - 1 : i + 2]) / np.diff(x)  # a parabola's, straight in x
    return float(np.exp(middles[0] + np.diff(middles)[0] * slopes[0] / (slopes[0] - slopes[1])))


def lowest(losses: Array) -> NDArray[np.bool_]:
    """Which are the lowest along the first axis, or equal to it but for rounding."""
    return np.asarray(losses <= losses.min(0) * (1 + ROUNDING))


def slope(x: Array, y: Array) -> float:
    return float(np.polyfit(x, y, 1)[0])
