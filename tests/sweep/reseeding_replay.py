"""Re-seeding replayed on recorded runs of ten seeds a point: what it spends, and whether it ends at the same frontier.

``python -m tests.sweep.reseeding_replay``
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from sleep_lightning.frontier import Point, frontier
from sleep_lightning.sweep.keys import Reseed
from sleep_lightning.sweep.settled import Seeded, by_one_seed, frontier_shares, lucky_or_undecided

RESULTS = Path(__file__).parents[2] / "results"
FILES = ("reproduce_rule110", "reproduce_depo")
ORDERS = 200


@dataclass(frozen=True)
class Recorded:
    """A point: training FLOPs of a run, and exact match by seed."""

    flops: float
    values: tuple[float, ...]


def recorded(name: str) -> dict[str, Recorded]:
    """N = 1, 2, 4 of a sweep of the reproduction, and N = 1 trained longer; all seeds in one order."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for line in (RESULTS / f"runs_{name}.jsonl").read_text().splitlines():
        run = json.loads(line)
        e, summary = run["experiment"], run["summary"]
        sleep, training = e["sleep"], e["training"]
        usual = {"pass_input": "hidden", "reset_memory_between_passes": False, "eviction": "hard", "looped": "blocks"}
        usual_training = {"stages": [], "sampled_passes": [], "unique_sequences": None}
        if e["model"]["pattern"] == "AGAG" and sleep | usual == sleep and training | usual_training == training:
            level = f"N = {sleep['n_passes']}, {training['max_steps']} steps"
            found.setdefault(level, {})[training["seed"]] = summary["train_flops"], summary["exact_match"]
    return {
        level: Recorded(next(iter(runs.values()))[0], tuple(runs[seed][1] for seed in sorted(runs)))
        for level, runs in found.items()
        if len(runs) == 10
    }


def edge(points: Sequence[Seeded]) -> frozenset[int]:
    """Which points are on the frontier of the means."""
    return frozenset(frontier([Point(point.cost, point.mean) for point in points]))


def replay(
    points: Mapping[str, Recorded], order: Sequence[int], first: int, confidence: float
) -> tuple[float, frozenset[int]]:
    """Training FLOPs spent from the first seeds of every point until all are decided or out of seeds, and the frontier
    then."""
    known, costs = [first] * len(points), [point.flops for point in points.values()]

    def seeded() -> list[Seeded]:
        return [
            Seeded(point.flops, tuple(point.values[i] for i in order[:n]))
            for point, n in zip(points.values(), known, strict=True)
        ]

    while True:
        now = seeded()
        allowed = [n < len(order) for n in known]
        i = lucky_or_undecided(frontier_shares(now), costs, allowed, by_one_seed(now), confidence)
        if i is None:
            return sum(n * cost for n, cost in zip(known, costs, strict=True)), edge(now)
        known[i] += 1


def equal_seeds(name: str) -> list[float]:
    """How often one to nine seeds everywhere have the frontier of all ten."""
    points, chance = list(recorded(name).values()), np.random.default_rng(0)
    truth = edge([Seeded(one.flops, one.values) for one in points])
    found = np.zeros(9)
    for _ in range(ORDERS):
        order = chance.permutation(10).tolist()
        for n in range(1, 10):
            found[n - 1] += edge([Seeded(p.flops, tuple(p.values[i] for i in order[:n])) for p in points]) == truth
    return (found / ORDERS).tolist()


def summary(name: str, first: int, confidence: float = Reseed().confidence) -> tuple[float, float]:
    """Share of the FLOPs of ten seeds everywhere, and how often the frontier is that of all ten."""
    points, chance = recorded(name), np.random.default_rng(0)
    whole = [Seeded(point.flops, point.values) for point in points.values()]
    truth, flops = edge(whole), sum(point.flops * len(point.values) for point in points.values())
    spent, same = [], []
    for _ in range(ORDERS):
        order = chance.permutation(10).tolist()
        cost, found = replay(points, order, first, confidence)
        spent.append(cost / flops)
        same.append(found == truth)
    return mean(spent), mean(same)


if __name__ == "__main__":
    for file in FILES:
        print(file, {level: round(mean(point.values), 3) for level, point in recorded(file).items()})
        for first in (1, 2, 3):
            spent, same = summary(file, first)
            print(f"from {first} seed(s): {spent:.0%} of the FLOPs, the same frontier in {same:.0%}")
        print("of 1 to 9 seeds everywhere:", " ".join(f"{share:.0%}" for share in equal_seeds(file)))
