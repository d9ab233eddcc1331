import pytest

from sleep_lightning.sweep.frontier import Point
from sleep_lightning.sweep.pruning import Pruner, value_at


def line(final_cost: float, final_value: float, shape: float = 1.0, n: int = 10) -> list[Point]:
    """A curve that rises to its final value; shape above 1 rises late."""
    return [Point(final_cost * i / n, final_value * (i / n) ** shape) for i in range(1, n + 1)]


FINISHED = [line(100, 0.9), line(100, 0.8), line(200, 0.95), line(50, 0.3), line(80, 0.5), line(100, 0.2)]


def test_a_hopeless_trial_is_stopped_and_a_promising_one_is_not() -> None:
    pruner = Pruner("frontier")
    assert pruner.why_stop(line(150, 0.3)[:5], 150, FINISHED) is not None
    assert pruner.why_stop(line(150, 1.0)[:5], 150, FINISHED) is None
    # as weak, but cheaper than anything finished: on the frontier whatever it reaches
    assert pruner.why_stop(line(40, 0.3)[:5], 40, FINISHED) is None


def test_what_others_gained_late_is_granted() -> None:
    late = [line(100, 0.9, shape=6) for _ in range(5)]
    assert Pruner("frontier").why_stop(line(100, 0.95, shape=6)[:5], 100, late) is None
    even = [line(100, 0.9) for _ in range(6)]
    assert Pruner("frontier").why_stop(line(100, 0.9, shape=6)[:5], 100, even) is not None


@pytest.mark.parametrize("kind", ["median", "frontier"])
def test_nothing_is_stopped_too_early_or_at_its_end(kind) -> None:  # type: ignore[no-untyped-def]
    pruner, weak = Pruner(kind, warm_up=5), line(150, 0.1)
    assert pruner.why_stop(weak[:5], 150, FINISHED[:4]) is None
    assert pruner.why_stop(weak[:1], 150, FINISHED) is None
    assert pruner.why_stop([], 150, FINISHED) is None
    assert pruner.why_stop(weak, 150, FINISHED) is None
    assert pruner.why_stop(weak[:5], 150, FINISHED) is not None


def test_none_stops_nothing() -> None:
    assert Pruner("none").why_stop(line(150, 0.0)[:5], 150, FINISHED) is None


def test_median_compares_at_equal_cost() -> None:
    reason = Pruner("median").why_stop([Point(60, 0.1)], 100, FINISHED)
    assert reason == "0.100 is below the median 0.325 at 60 FLOPs"
    assert Pruner("median").why_stop([Point(60, 0.34)], 100, FINISHED) is None


def test_value_at_is_the_last_that_was_paid_for() -> None:
    curve = [Point(1, 0.1), Point(2, 0.5)]
    assert [value_at(curve, cost) for cost in (0.5, 1, 1.9, 2, 9)] == [0.1, 0.1, 0.1, 0.5, 0.5]
