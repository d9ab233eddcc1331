"""What no other point beats in both: accuracy (more is better) and cost (less is better).

Points are ``(cost, value)``. Points with NaN or infinities are nobody's competitors and on no frontier.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """Something that was paid for, and what it reached."""

    cost: float
    value: float


def frontier(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates, by rising cost.

    A point dominates another if it costs no more, is worth no less, and is better in one of both. Of equal points
    the first stands for all.
    """
    order = sorted(
        (i for i, p in enumerate(points) if math.isfinite(p.cost) and math.isfinite(p.value)),
        key=lambda i: (points[i].cost, -points[i].value, i),
    )
    kept: list[int] = []
    for i in order:
        if not kept or points[i].value > points[kept[-1]].value:
            kept.append(i)
    return kept


def best_value(points: Sequence[Point], cost: float) -> float:
    """The most that any of the points reached at no greater cost; ``-inf`` if all cost more."""
    edge = [points[i] for i in frontier(points)]
    at = bisect_right([p.cost for p in edge], cost)
    return edge[at - 1].value if at else -math.inf


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Area that the frontier dominates: costs up to the reference's, values from the reference's up.

    Points that cost more than the reference or are worth less add nothing.
    """
    edge = [points[i] for i in frontier(points)]
    edge = [p for p in edge if p.cost < reference.cost and p.value > reference.value]
    if not edge:
        return 0.0
    ends = [p.cost for p in edge[1:]] + [reference.cost]
    return sum((end - p.cost) * (p.value - reference.value) for p, end in zip(edge, ends, strict=True))


def dominated_share(points: Sequence[Point]) -> float:
    """Share of the area below value 1 and up to the largest cost that the frontier dominates; 0 without points."""
    most = max((p.cost for p in points), default=0.0)
    return hypervolume(points, Point(most, 0.0)) / most if most else 0.0


class GrowingArea:
    """``hypervolume`` of points that come one after another: each takes a search, not a look at all before it."""

    def __init__(self, reference: Point) -> None:
        self._reference, self.area = reference, 0.0
        self._costs: list[float] = []
        self._values: list[float] = []

    def add(self, point: Point) -> float:
        """Returns the area with it."""
        (cost, value), costs, values = point, self._costs, self._values
        if not (math.isfinite(cost) and cost < self._reference.cost and self._reference.value < value < math.inf):
            return self.area
        first = bisect_left(costs, cost)
        if any(values[i] >= value for i in (first - 1, first) if 0 <= i < len(costs) and costs[i] <= cost):
            return self.area
        last, at, height = first, cost, values[first - 1] if first else self._reference.value
        while last < len(costs) and values[last] <= value:
            self.area += (costs[last] - at) * (value - height)
            at, height, last = costs[last], values[last], last + 1
        end = costs[last] if last < len(costs) else self._reference.cost
        self.area += (end - at) * (value - height)
        costs[first:last], values[first:last] = [cost], [value]
        return self.area
