"""Seeds drawn with replacement, and intervals from that which are wide enough for few seeds.

Percentiles of a bootstrap of n seeds are too narrow: its variance is divided by n, not by n - 1, and it has no tails of
Student's t. Those taken here lie further out, at ``Phi(-sqrt(n / (n - 1)) t)`` (Hesterberg 2015, "What teachers should
know about the bootstrap"). Fewer than five seeds have no resamples that far out.
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb, inf

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVEL = 0.95
MOST_LISTED = 200
"""Resamples that are all taken; of more, some are drawn."""
LEAST_SEEDS = 5
"""Of fewer, an interval is the range over the resamples, which holds the truth less often than ``LEVEL``."""


@dataclass(frozen=True)
class Resamples:
    """Seeds drawn with replacement, as many as there are.

    Attributes:
        weights: shares of the seeds, ``[resamples, seeds]``.
        chances: of each resample; their sum is 1.
    """

    weights: Array
    chances: Array

    @classmethod
    def of(cls, seeds: int, most: int) -> "Resamples":
        """All there are of up to five seeds, those of the same seeds once; else so many at random."""
        if comb(2 * seeds - 1, seeds) > MOST_LISTED:
            drawn = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=most)
            return cls(drawn / seeds, np.full(most, 1 / most))
        draws = np.array(list(combinations_with_replacement(range(seeds), seeds)))
        times = (draws[:, :, None] == np.arange(seeds)).sum(1)
        orders = np.array([_orders(row) for row in times.tolist()])
        return cls(times / seeds, orders / orders.sum())

    def interval(self, values: Array) -> tuple[float, float]:
        """Of a value from what it is in the first of the resamples, all if they are listed; NaN may be anything."""
        level = float(tail(self.weights.shape[1]))
        chances = self.chances[: len(values)] / self.chances[: len(values)].sum()
        low = _reached(np.where(np.isnan(values), -inf, values), chances, level)
        return low, -_reached(np.where(np.isnan(values), -inf, -values), chances, level)


def interval_name(seeds: int) -> str:
    """What ``Resamples.interval`` is for so many seeds."""
    return f"{LEVEL:.0%} interval" if seeds >= LEAST_SEEDS else "range of resamples"


def tail(seeds: int) -> float:
    """Share of the resamples below an interval, and above it."""
    from scipy.stats import norm, t

    return float(norm.cdf(-((seeds / (seeds - 1)) ** 0.5) * t.ppf((1 + LEVEL) / 2, seeds - 1)))


def _orders(times: list[int]) -> int:
    """In how many orders seeds are drawn so many times each."""
    found, left = 1, sum(times)
    for n in times:
        found, left = found * comb(left, n), left - n
    return found


def _reached(values: Array, chances: Array, share: float) -> float:
    """The smallest of the values below and at which this share of the chances lies."""
    order = np.argsort(values)
    at = np.searchsorted(np.cumsum(chances[order]), share)
    return float(values[order][min(int(at), len(values) - 1)])
