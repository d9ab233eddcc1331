"""What a few seeds can tell: intervals, and permutation tests within seeds (same data order, other arm)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial, inf, prod, sqrt
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 20_000
"""Below so many rearrangements the test is exact; above, so many are drawn."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95% interval (Student's t: the seeds are few)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """Raises ValueError for no values; one value has no bounds."""
        if not values:
            raise ValueError("an interval needs at least one value")
        from scipy.stats import t

        middle, n = mean(values), len(values)
        reach = float(t.ppf(0.975, n - 1)) * stdev(values) / sqrt(n) if n > 1 else inf
        return cls(middle, middle - reach, middle + reach)

    def within(self, low: float, high: float) -> "Interval":
        """The same, cut to what is possible; no bounds stay none."""
        return self if self.high == inf else Interval(self.mean, max(self.low, low), min(self.high, high))

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.high == inf else f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ordered_p(levels: Sequence[Sequence[float]]) -> float:
    """How likely values that rise at least so much from level to level are if the level did not matter.

    Page's idea with the values themselves in place of ranks, so that ties (all answers right) need no rule: levels are
    rearranged within each seed, and the sum of value times position is compared. One-sided.

    Args:
        levels: by level, in the claimed order, the values by seed (the same seeds in all).
    """
    assert len({len(values) for values in levels}) == 1, "every level has the same seeds"
    from scipy.stats import permutation_test

    def rise(*samples: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return sum((i * x.mean(axis) for i, x in enumerate(samples)), start=np.zeros(1))

    seeds = [list(values) for values in levels]
    if len(seeds[0]) == 1:  # scipy wants two
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


def least_p(levels: Sequence[Sequence[float]]) -> float:
    """The smallest p that values could give that are equal where these are: ties leave fewer rearrangements.

    Args:
        levels: as of ``ordered_p``.
    """
    ways = prod(
        factorial(len(values)) // prod(map(factorial, Counter(values).values())) for values in zip(*levels, strict=True)
    )
    return 1 / min(ways, PERMUTATIONS)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Mean of the differences seed by seed, with its interval."""
    return Interval.of([a - b for a, b in zip(ours, theirs, strict=True)])
