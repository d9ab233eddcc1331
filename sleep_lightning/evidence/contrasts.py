"""A point of a sweep against its others, paired by seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sleep_lightning.evidence.statistics import Interval, difference, holm, two_sided_p
from sleep_lightning.sweep.solved import Solved
from sleep_lightning.sweep.space import in_yaml, written


@dataclass(frozen=True)
class Contrast:
    """The named point against another, on the seeds that have finished in both.

    Attributes:
        values: the other point.
        seeds: how many they share.
        difference: mean exact match of the named point less that of the other, with Student's 95% interval.
        p: two-sided, of all sign changes of the differences (20,000 drawn ones where there are more).
        corrected: p by Holm's procedure over all contrasts.
    """

    values: dict[str, Any]
    seeds: int
    difference: Interval
    p: float
    corrected: float


def named(points: Sequence[Solved], words: Sequence[str]) -> Solved:
    """The point that has all of ``key=value``; keys with or without their section.

    Raises:
        ValueError: none has, or several have.
    """
    found = [point for point in points if set(words) <= _words(point.values)]
    if len(found) != 1:
        asked, listed = " ".join(words), "; ".join(written(point.values) for point in (found or points))
        fix = "several have it, add a key that tells them apart" if found else "no point has it, use one of"
        raise ValueError(f"--against {asked}: {fix}: {listed}")
    return found[0]


def contrasts(point: Solved, points: Sequence[Solved]) -> list[Contrast]:
    """``point`` against each of the others with which it shares two seeds or more. Runs that diverged, failed or were
    stopped have no exact match and are left out with their pairs."""
    pairs = []
    for other in points:
        mine, theirs = _exact(point), _exact(other)
        seeds = sorted(mine.keys() & theirs.keys())
        if other is not point and len(seeds) > 1:
            pairs.append((other.values, [mine[seed] for seed in seeds], [theirs[seed] for seed in seeds]))
    p = [two_sided_p([theirs, mine]) for _, mine, theirs in pairs]
    return [
        Contrast(values, len(mine), difference(mine, theirs).within(-1, 1), own, corrected)
        for (values, mine, theirs), own, corrected in zip(pairs, p, holm(p), strict=True)
    ]


def _exact(point: Solved) -> dict[int, float]:
    return {run.seed: run.exact_match for run in point.runs if run.end == "finished"}


def _words(values: dict[str, Any]) -> set[str]:
    return {
        f"{name}={text}"
        for key, value in values.items()
        for name in (key, key.rpartition(".")[2])
        for text in (in_yaml(value), str(value))
    }
