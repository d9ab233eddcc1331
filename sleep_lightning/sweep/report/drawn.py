"""Which of very many trials are drawn: a page that holds them all would be slow to make and to open."""

from collections.abc import Collection, Sequence
from itertools import pairwise

from sleep_lightning.frontier import Point
from sleep_lightning.sweep.report.rows import Row

MOST_DOTS = 2000
MOST_CURVES = 200
MOST_STEPS = 2000


def thinned(trials: Sequence[Row], most: int, always: Collection[Row] = ()) -> list[Row]:
    """All trials if they are few, else about so many, evenly by their order, besides those that are always drawn."""
    if len(trials) <= most:
        return list(trials)
    kept, every = {trial.number for trial in always}, -(-len(trials) // most)
    return [trial for i, trial in enumerate(trials) if i % every == 0 or trial.number in kept]


def steps(points: Sequence[Point]) -> list[Point]:
    """The points of a step line; of very many, those at which it rises or falls, and the last."""
    if len(points) <= MOST_STEPS:
        return list(points)
    return [*points[:1], *(b for a, b in pairwise(points) if b.value != a.value), *points[-1:]]
