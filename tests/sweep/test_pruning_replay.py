"""A replayed sweep against one worked out by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from sleep_lightning.frontier import Point
from sleep_lightning.sweep.pruning import Curve, Pruner
from tests.sweep.pruning_replay import replay

CURVES = [
    [Point(10, 0.1), Point(20, 0.4)],
    [Point(10, 0.1), Point(20, 0.1), Point(30, 0.1), Point(40, 0.5)],
    [Point(30, 0.2), Point(60, 0.9)],
]


@dataclass(frozen=True)
class StopsAt(Pruner):
    """Stops the trial of this final cost once it has cost so much; notes what it is shown."""

    final_cost: float = 0.0
    cost: float = 0.0
    shown: list[tuple[float, float, list[float]]] = field(default_factory=list)

    def why_stop(self, curve: Curve, final_cost: float, finished: Sequence[Curve]) -> str | None:
        self.shown.append((final_cost, curve[-1].cost, [other[-1].cost for other in finished]))
        return "because" if final_cost == self.final_cost and curve[-1].cost >= self.cost else None


def test_without_a_pruner_nothing_is_saved_or_lost() -> None:
    found = replay(CURVES, [1, 0, 2], Pruner("none"), workers=2)
    assert found.finished == (0, 1, 2)  # at 20, 40, 20 + 60
    assert (found.flops_saved, found.hypervolume_lost, found.best_lost) == (0, 0, 0)


def test_by_hand() -> None:
    found = replay(CURVES, [0, 1, 2], StopsAt(final_cost=40, cost=20))
    assert found.finished == (0, 2)
    assert found.flops_saved == pytest.approx(20 / 120)
    # of 120 FLOPs' width up to 60: 0.4 from 20, 0.5 from 40; the dearest lies on the edge and adds nothing
    assert found.hypervolume_lost == pytest.approx(1 - 0.4 * 40 / (0.4 * 20 + 0.5 * 20))
    assert found.best_lost == 0
    dearest = replay(CURVES, [0, 1, 2], StopsAt(final_cost=60, cost=30))
    assert (dearest.flops_saved, dearest.hypervolume_lost) == (pytest.approx(30 / 120), 0)
    assert dearest.best_lost == pytest.approx(0.4)


def test_a_pruner_sees_what_has_finished_by_then() -> None:
    alone, pairs = StopsAt(), StopsAt()
    replay(CURVES, [0, 1, 2], alone)
    assert alone.shown == [(20, 10, []), (40, 10, [20]), (40, 20, [20]), (40, 30, [20]), (60, 30, [20, 40])]
    replay(CURVES, [1, 0, 2], pairs, workers=2)  # the third trial begins at 20, when the second ends
    assert sorted(pairs.shown) == [(20, 10, []), (40, 10, []), (40, 20, [20]), (40, 30, [20]), (60, 30, [20, 40])]


def test_a_stopped_trial_frees_its_place() -> None:
    shown = StopsAt(final_cost=40, cost=10)
    found = replay(CURVES, [1, 2, 0], shown)
    assert [cost for final, cost, _ in shown.shown if final == 40] == [10]
    assert found.finished == (2, 0)
    assert found.flops_saved == pytest.approx(30 / 120)


def test_a_hypervolume_of_nothing_cannot_be_lost() -> None:
    assert replay(CURVES[:1], [0], Pruner()).hypervolume_lost == 0
