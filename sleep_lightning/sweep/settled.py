"""How sure a frontier is: by resamples of the seeds, how often each point lies on it, and its interval at each cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sleep_lightning.frontier import Point, frontier

RESAMPLES = 1000
AT_ONCE = 2**20
"""Values that are resampled at once: 8 MiB."""
Array = NDArray[Any]


@dataclass(frozen=True)
class Seeded:
    """A point with a value for each seed, of which more is better; its cost is exact."""

    cost: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


def by_one_seed(points: Sequence[Seeded]) -> list[bool]:
    """Which points are on the frontier of the means with a single seed: luck may have put them there."""
    edge = frontier([Point(point.cost, point.mean) for point in points])
    return [i in edge and len(point.values) == 1 for i, point in enumerate(points)]


def frontier_shares(points: Sequence[Seeded]) -> list[float]:
    """Share of the resamples in which each point is on the frontier; 1/2 for one that a single seed has put there.

    Means are drawn around the measured ones with a point's standard error. Its variance over seeds is that of its own
    values and, as one more degree of freedom, the mean over all points: two seeds that agree by chance make no
    point certain. Of a single seed it is the largest of any point: where seeds agree, as before a task is learned, they
    say nothing of a point whose seeds may not. As long as no point has two seeds, those off the frontier get 0.
    """
    alone, costs = by_one_seed(points), np.array([point.cost for point in points])
    on = sum((_on_frontier(costs, means) for means in _resampled(points)), np.zeros(len(points)))
    if not _spread(points):
        return [0.5 if lucky else 0.0 for lucky in alone]
    return [0.5 if lucky else float(share) for lucky, share in zip(alone, on / RESAMPLES, strict=True)]


def frontier_intervals(points: Sequence[Seeded], costs: Sequence[float]) -> list[tuple[float, float]]:
    """95% interval of the best mean at these costs or less, over the resamples of ``frontier_shares``; empty as long as
    no point has two seeds, or nothing costs so little."""
    of_points = np.array([point.cost for point in points])
    order = np.argsort(of_points, kind="stable")
    last = np.searchsorted(of_points[order], costs, side="right") - 1  # of those that cost so little
    if not _spread(points) or (last < 0).any():
        return []
    best = np.concatenate([np.maximum.accumulate(means[:, order], axis=1)[:, last] for means in _resampled(points)])
    lows, highs = np.percentile(best, (2.5, 97.5), axis=0)
    return list(zip(lows.tolist(), highs.tolist(), strict=True))


def _spread(points: Sequence[Seeded]) -> list[tuple[float, int]]:
    """Variance over seeds and its degrees of freedom, of every point that has two."""
    return [(float(np.var(point.values, ddof=1)), len(point.values) - 1) for point in points if len(point.values) > 1]


def _resampled(points: Sequence[Seeded]) -> Iterator[Array]:
    """Means drawn around the measured ones, [resamples, points] some at a time; none if no point has two seeds."""
    if not (spread := _spread(points)):
        return
    pooled = sum(variance * freedom for variance, freedom in spread) / sum(freedom for _, freedom in spread)
    largest = max(variance for variance, _ in spread)
    deviations = np.array([_standard_error(p, pooled if len(p.values) > 1 else largest) for p in points])
    means, chance, left = np.array([point.mean for point in points]), np.random.default_rng(0), RESAMPLES
    while left:
        some = min(left, max(1, AT_ONCE // len(points)))
        yield means + chance.standard_normal((some, len(points))) * deviations
        left -= some


def _on_frontier(costs: Array, values: Array) -> Array:
    """How many rows of values [rows, points] have each point on their frontier: ``frontier`` of all rows at once."""
    order = np.argsort(costs, kind="stable")
    ordered, first = values[:, order], np.flatnonzero(np.diff(costs[order], prepend=-np.inf))  # of each cost
    best = np.maximum.reduceat(ordered, first, axis=1)
    cheaper = np.maximum.accumulate(best, axis=1)
    ahead = np.ones(best.shape, dtype=bool)
    ahead[:, 1:] = best[:, 1:] > cheaper[:, :-1]
    sizes = np.diff(first, append=len(costs))
    equal = ordered == np.repeat(best, sizes, axis=1)
    so_far = np.cumsum(equal, axis=1)
    before = np.repeat(so_far[:, first] - equal[:, first], sizes, axis=1)
    on = np.zeros(len(costs))
    on[order] = (np.repeat(ahead, sizes, axis=1) & equal & (so_far - before == 1)).sum(axis=0)
    return on


def _standard_error(point: Seeded, others: float) -> float:
    n = len(point.values)
    own = float(np.var(point.values, ddof=1)) * (n - 1) if n > 1 else 0.0
    return float(((own + others) / n / n) ** 0.5)


def next_to_seed(
    shares: Sequence[float], costs: Sequence[float], allowed: Sequence[bool], confidence: float
) -> int | None:
    """The allowed point that is least decided for what another seed of it costs; None if all are decided.

    Args:
        shares: as ``frontier_shares``.
        costs: of another seed of each.
        allowed: which may get one.
        confidence: a point is decided if it is on the frontier, or off it, in this share of the resamples.
    """
    undecided = [i for i, p in enumerate(shares) if allowed[i] and max(p, 1 - p) < confidence]
    return max(undecided, key=lambda i: shares[i] * (1 - shares[i]) / costs[i], default=None)


def lucky_or_undecided(
    shares: Sequence[float],
    costs: Sequence[float],
    allowed: Sequence[bool],
    alone: Sequence[bool],
    confidence: float,
) -> int | None:
    """``next_to_seed`` of the allowed points that a single seed has put on the frontier (``by_one_seed``), which no
    share decides; of all that are allowed if there is none."""
    lucky = [ok and one for ok, one in zip(allowed, alone, strict=True)]
    first = next_to_seed(shares, costs, lucky, confidence)
    return next_to_seed(shares, costs, allowed, confidence) if first is None else first
