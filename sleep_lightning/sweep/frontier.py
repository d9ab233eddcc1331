"""What no other point beats in both: accuracy (more is better) and cost (less is better).

Points are ``(cost, value)``. Points with NaN or infinities are nobody's competitors and on no frontier.
"""

import math
from bisect import bisect_right
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
