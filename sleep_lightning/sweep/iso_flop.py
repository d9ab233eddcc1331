"""Loss over N at equal training FLOPs: runs of a budget train with different N, each for as many steps as it buys.

``N*(C)`` is the minimum of a parabola in log N through the mean losses, as Chinchilla's second approach finds the best
size (arXiv:2203.15556, 3.2). Intervals are percentiles over resampled seeds; runs of a seed see the same data and are
drawn together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf, isinf

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
Array = NDArray[np.float64]


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
    """A value with its 95% interval over seeds; unbounded for a single seed."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}" if isinf(self.low) else f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Curve:
    """A budget: mean losses by N, and their minimum.

    Attributes:
        budget: training FLOPs.
        losses: mean over seeds, by N.
        best: ``N*``.
        at_edge: the minimum is the smallest or largest N that was run: the true one may lie beyond.
        wins: share of the resamples in which an N has the lowest mean.
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

    Raises:
        ValueError: no seed has finished everywhere.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        shared = sorted(set.intersection(*(set(cell.losses) for cell in cells)))
        if not shared:
            raise ValueError("no seed has finished at every N and budget yet")
        self.losses: Array = np.array([[cell.losses[seed] for seed in shared] for cell in cells])
        draws = np.random.default_rng(0).integers(len(shared), size=(RESAMPLES, len(shared)))
        self.resampled: Array = self.losses[:, draws].mean(-1)

    @property
    def count(self) -> int:
        """How many they are."""
        return self.losses.shape[1]

    @property
    def means(self) -> Array:
        """Over seeds, ``[cells]``."""
        return np.asarray(self.losses.mean(1))

    def estimate(self, value: float, resamples: Array) -> Estimate:
        """A value and what it is in resamples."""
        if self.count == 1:
            return Estimate(value, -inf, inf)
        low, high = np.percentile(resamples, [2.5, 97.5])
        return Estimate(value, float(low), float(high))


def curves(cells: Sequence[Cell], seeds: Seeds) -> tuple[list[Curve], Estimate | None]:
    """A curve for each budget with three N or more, the smallest first; and a of ``N* ~ C^a``.

    The exponent is None for fewer than three curves, or if a minimum lies at the edge.
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
        lowest = resampled.argmin(0)
        wins = {int(n): float((lowest == i).mean()) for i, n in enumerate(depths)}
        by_depth = {int(n): float(loss) for n, loss in zip(depths, means, strict=True)}
        found.append(Curve(budget, by_depth, seeds.estimate(best, others), best in (depths[0], depths[-1]), wins))
        minima.append(others)
    if len(found) < 3 or any(curve.at_edge for curve in found):
        return found, None
    log_budgets = np.log([curve.budget for curve in found])
    exponent = slope(log_budgets, np.log([curve.best.value for curve in found]))
    return found, seeds.estimate(
        exponent, np.array([slope(log_budgets, np.log(column)) for column in np.array(minima).T])
    )


def minimum(depths: NDArray[np.int64], losses: Array) -> float:
    """``N*``: of the parabola in log N through the losses, within the N that were run; where it opens downwards, the N
    at the end with the lower loss."""
    curvature, slope, _ = np.polyfit(np.log(depths), losses, 2)
    if curvature <= 0:
        return float(depths[0] if losses[0] <= losses[-1] else depths[-1])
    return float(np.clip(np.exp(-slope / (2 * curvature)), depths[0], depths[-1]))


def slope(x: Array, y: Array) -> float:
    return float(np.polyfit(x, y, 1)[0])
