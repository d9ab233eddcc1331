"""Statistics for few seeds: intervals, and permutation tests within seeds (the same data order, another arm)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial, inf, prod, sqrt
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 20_000
"""With fewer rearrangements the test is exact; otherwise this many are drawn."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95% interval (Student's t: the seeds are few)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The interval of the mean of ``values``; unbounded for a single one. Raises ValueError for none."""
        if not values:
            raise ValueError("an interval needs at least one value")
        from scipy.stats import t

        middle, n = mean(values), len(values)
        reach = float(t.ppf(0.975, n - 1)) * stdev(values) / sqrt(n) if n > 1 else inf
        return cls(middle, middle - reach, middle + reach)

    def within(self, low: float, high: float) -> "Interval":
        """The interval clipped to possible values; an unbounded one stays so."""
        return self if self.high == inf else Interval(self.mean, max(self.low, low), min(self.high, high))

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.high == inf else f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ordered_p(levels: Sequence[Sequence[float]]) -> float:
    """p of values that rise at least this much from level to level, under the null that the level has no effect.

    Page's trend test on the values instead of ranks, so that ties (all answers right) need no rule: levels are permuted
    within each seed, and the statistic is the sum of value times position. One-sided.

    Args:
        levels: for each level, in the claimed order, the values by seed (the same seeds in all).
    """
    assert len({len(values) for values in levels}) == 1, "every level has the same seeds"
    from scipy.stats import permutation_test

    def rise(*samples: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.asarray(sum(i * x.mean(axis) for i, x in enumerate(samples)))

    seeds = [list(values) for values in levels]
    if len(seeds[0]) == 1:  # scipy needs at least two
        every = [rise(*(np.array(x) for x in order), axis=-1) for order in permutations(seeds)]
        return sum(other.item() >= every[0].item() for other in every) / len(every)
    result = permutation_test(
        seeds,
        rise,
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        alternative="greater",
        rng=0,
    )
    return float(result.pvalue)


def two_sided_p(levels: Sequence[Sequence[float]]) -> float:
    """p of a trend in either direction: twice the smaller of the two one-sided ones, at most 1."""
    return min(1.0, 2 * min(ordered_p(levels), ordered_p(levels[::-1])))


def holm(p: Sequence[float]) -> list[float]:
    """Each p corrected for all of them (Holm's step-down procedure, which holds whatever their dependence)."""
    corrected, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = least
    return corrected


def least_p(levels: Sequence[Sequence[float]]) -> float:
    """The smallest p that values with the same ties could give: ties leave fewer rearrangements."""
    ways = prod(
        factorial(len(values)) // prod(map(factorial, Counter(values).values())) for values in zip(*levels, strict=True)
    )
    return 1 / min(ways, PERMUTATIONS)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Mean of the paired differences, with its interval."""
    return Interval.of([a - b for a, b in zip(ours, theirs, strict=True)])
