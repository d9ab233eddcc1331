import random
from dataclasses import replace
from statistics import mean, quantiles

import pytest

from sleep_lightning.frontier import Point
from sleep_lightning.sweep.pruning import Pruner, gain_at_own_pace, value_at
from tests.sweep.pruning_replay import replay
from tests.sweep.recorded import ANSWERS, recorded


def line(final_cost: float, final_value: float, shape: float = 1.0, n: int = 10) -> list[Point]:
    """A curve that rises to its final value; shape above 1 rises late, 0 is flat."""
    return [Point(final_cost * i / n, final_value * (i / n) ** shape) for i in range(1, n + 1)]


FINISHED = [line(100, 0.9), line(100, 0.8), line(200, 0.95), line(50, 0.3), line(80, 0.5), line(100, 0.2)]


def test_a_hopeless_trial_is_stopped_and_a_promising_one_is_not() -> None:
    pruner = Pruner("frontier")
    reason = pruner.why_stop(line(150, 0.3)[:5], 150, FINISHED)
    assert reason == "even 0.600 would not beat 0.900, reached for no more than 150 FLOPs"
    assert pruner.why_stop(line(150, 1.0)[:5], 150, FINISHED) is None
    # as weak, but cheaper than anything finished: on the frontier whatever it reaches
    assert pruner.why_stop(line(40, 0.3)[:5], 40, FINISHED) is None


def test_what_others_gained_late_is_granted() -> None:
    late = [line(100, 0.9, shape=6) for _ in range(5)]
    assert Pruner().why_stop(line(100, 0.95, shape=6)[:5], 100, [*late, line(100, 0.8)]) is None
    even = [line(100, 0.9) for _ in range(6)]
    assert Pruner().why_stop(line(100, 0.95, shape=6)[:5], 100, even) is not None


def test_a_curve_that_is_taking_off_is_let_go_on() -> None:
    finished = [line(100, value, shape=0) for value in (0.5, 0.5, 0.6, 0.7, 0.8, 0.9)]  # none gained anything
    flat, rising = line(200, 0.5, shape=0)[:5], [*line(200, 0.1, shape=0)[:3], Point(80, 0.3), Point(100, 0.5)]
    assert Pruner().why_stop(flat, 200, finished) is not None
    assert Pruner().why_stop(rising, 200, finished) is None
    assert gain_at_own_pace(flat, 200) == 0
    assert gain_at_own_pace(rising, 200) == pytest.approx(100 * 0.4 / 60)  # since 40, the last before half of 100
    assert gain_at_own_pace(rising[:1], 200) == float("inf")


def test_being_flat_tells_nothing_where_all_were() -> None:
    late = [*line(100, 0.1, shape=0)[:8], Point(90, 0.5), Point(100, 0.9)]
    finished = [*(line(100, 0.1, shape=0) for _ in range(5)), late]
    assert Pruner().gain(0.5, finished) == 0
    assert Pruner().why_stop(line(100, 0.1, shape=0)[:5], 100, finished) is None
    assert Pruner().why_stop(line(100, 0.09, shape=0)[:5], 100, finished) is not None


def test_more_than_the_granted_gain_is_as_likely_as_the_risk_says() -> None:
    dice, pruner = random.Random(0), Pruner(risk=0.4)
    above = 0
    for _ in range(4000):
        *others, new = (dice.random() for _ in range(10))
        above += new > pruner.gain(0.5, [[Point(50, 0.0), Point(100, gain)] for gain in others])
    assert above / 4000 == pytest.approx(0.2, abs=0.02)
    # without enough of them there is no bound: n / (n + 1) must reach 1 - risk * progress
    assert Pruner().gain(0.2, FINISHED[:5]) == float("inf")
    assert Pruner().gain(0.2, FINISHED) == pytest.approx(0.8 * 0.95)


@pytest.mark.parametrize("kind", ["median", "frontier"])
def test_nothing_is_stopped_too_early_or_at_its_end(kind) -> None:  # type: ignore[no-untyped-def]
    pruner, weak = Pruner(kind, warm_up=5), line(150, 0.1)
    assert pruner.why_stop(weak[:5], 150, FINISHED[:1]) is None
    assert pruner.why_stop(weak[:1], 150, FINISHED) is None
    assert pruner.why_stop([], 150, FINISHED) is None
    assert pruner.why_stop(weak, 150, FINISHED) is None
    assert pruner.why_stop(weak[:5], 150, FINISHED) is not None


def test_a_difference_within_its_standard_error_stops_nothing() -> None:
    curve, lower = line(150, 0.3)[:5], line(150, 0.1)[:5]
    median, frontier = Pruner("median"), Pruner()
    for pruner, weak in ((median, [Point(60, 0.3)]), (frontier, curve)):
        assert pruner.why_stop(weak, 150, FINISHED) is not None
        assert replace(pruner, answers=1e6).why_stop(weak, 150, FINISHED) is not None
        assert replace(pruner, answers=3).why_stop(weak, 150, FINISHED) is None
    # 0.325 is the median; of 100 answers, the difference of shares of about 0.3 has an error of 0.066
    assert replace(median, answers=100).why_stop([Point(60, 0.27)], 100, FINISHED) is None
    reason = replace(median, answers=100).why_stop([Point(60, 0.25)], 100, FINISHED)
    assert reason == "0.250 is below the median 0.325 at 60 FLOPs (by 0.075 ± 0.064)"
    reason = replace(frontier, answers=100).why_stop(lower, 150, FINISHED)
    assert reason == "even 0.500 would not beat 0.900, reached for no more than 150 FLOPs (by 0.400 ± 0.058)"


def test_others_ahead_within_the_standard_error_are_not_ahead() -> None:
    """Where all curves are equal but for noise so far, none tells which will take off."""
    finished = [[Point(50, 0.1), Point(100, 0.9)], *([Point(50, 0.1), Point(100, 0.1)] for _ in range(9))]
    now = [Point(50, 0.09)]
    pruner = Pruner(risk=0.75)
    curve = [Point(25, 0.09), *now]
    assert pruner.why_stop(curve, 100, finished) is not None
    assert replace(pruner, answers=1024).why_stop(curve, 100, finished) is None


def test_nothing_is_above_the_ceiling() -> None:
    """As much as the most there is cannot be beaten; as much as anything below it can, by chance."""
    pruner, now = Pruner(answers=100), [Point(10, 0.4), Point(50, 0.4)]

    def finished(end: float) -> list[list[Point]]:
        return [[Point(50, 0.6), Point(100, end)], *([Point(50, end - 0.6), Point(100, end)] for _ in range(5))]

    assert pruner.gain(0.5, finished(1.0)) == pytest.approx(0.6)
    assert pruner.why_stop(now, 100, finished(1.0)) is not None
    assert pruner.why_stop([Point(10, 0.3), Point(50, 0.3)], 100, finished(0.9)) is None
    assert Pruner().why_stop([Point(10, 0.3), Point(50, 0.3)], 100, finished(0.9)) is not None


def test_none_stops_nothing() -> None:
    assert Pruner("none").why_stop(line(150, 0.0)[:5], 150, FINISHED) is None


def test_median_compares_at_equal_cost() -> None:
    reason = Pruner("median").why_stop([Point(60, 0.1)], 100, FINISHED)
    assert reason == "0.100 is below the median 0.325 at 60 FLOPs"
    assert Pruner("median").why_stop([Point(60, 0.34)], 100, FINISHED) is None
    assert Pruner("median").why_stop([Point(60, 0.1)], 100, FINISHED[:4]) is None


def test_value_at_is_the_last_that_was_paid_for() -> None:
    curve = [Point(1, 0.1), Point(2, 0.5)]
    assert [value_at(curve, cost) for cost in (0.5, 1, 1.9, 2, 9)] == [0.1, 0.1, 0.1, 0.5, 0.5]


def test_a_trial_validated_at_its_end_alone_does_not_count_before() -> None:
    """It would have gained nothing, and have had its end from the start."""
    ends = [[Point(100, 0.9)] for _ in range(6)]
    assert Pruner().gain(0.5, ends) == float("inf")
    assert Pruner("median").why_stop([Point(60, 0.1)], 150, ends) is None
    assert Pruner("median").why_stop([Point(100, 0.1)], 150, ends) is not None


POOLS = {
    "Depo, a random search": recorded("depo", "search"),
    "Depo, the same, validated every 100 steps": [curve[1::2] for curve in recorded("depo", "search")],
    "Depo, search and comparison": recorded("depo", "search", "comparison"),
    "Rule 110, comparison": recorded("rule110", "comparison"),
}


def saved_lost_best(
    pool: str, pruner: Pruner, orders: int = 200, trials: int | None = None, exact: bool = False
) -> tuple[list[float], list[float], list[float]]:
    """Of random orders, two trials at a time: FLOPs saved, hypervolume lost, exact match of the best lost. Printed.

    ``exact``: as if the validations had no noise.
    """
    curves, dice = POOLS[pool], random.Random(0)
    n, answers = trials or len(curves), ANSWERS["depo" if pool.startswith("Depo") else "rule110"]
    pruner = pruner if exact else replace(pruner, answers=answers)
    found = [replay(curves, dice.sample(range(len(curves)), n), pruner, workers=2) for _ in range(orders)]
    saved = [r.flops_saved for r in found]
    lost = [r.hypervolume_lost for r in found]
    best = [r.best_lost for r in found]
    print(
        f"\n{pool}, {n} trials, {pruner.kind} from {pruner.first_progress:.0%} on: saved {mean(saved):.1%} of the "
        f"FLOPs (one order in ten below {quantiles(saved, n=10)[0]:.1%}), lost {mean(lost):.2%} of the hypervolume "
        f"(one in ten above {quantiles(lost, n=10)[-1]:.2%}, at most {max(lost):.2%}), {mean(best):.3f} of the best "
        f"exact match (at most {max(best):.3f})"
    )
    return saved, lost, best


def test_recorded_search_saves_a_third_for_1_percent() -> None:
    saved, lost, best = saved_lost_best("Depo, a random search", Pruner(), orders=400)
    assert mean(saved) >= 0.36
    assert mean(lost) <= 0.01 and max(lost) <= 0.02
    assert max(best) <= 0.02


@pytest.mark.parametrize(
    ("pool", "least"),
    [
        ("Depo, the same, validated every 100 steps", 0.30),
        ("Depo, search and comparison", 0.24),
        ("Rule 110, comparison", 0.12),
    ],
)
def test_recorded_runs_with_less_to_save(pool: str, least: float) -> None:
    """Where verdicts are rarer, or most runs are good, less is saved; the loss stays small."""
    saved, lost, best = saved_lost_best(pool, Pruner(), orders=100)
    assert least <= mean(saved) < 0.40
    assert mean(lost) <= 0.005 and max(lost) <= 0.02
    assert max(best) <= 0.02


def test_recorded_search_of_half_as_many_trials() -> None:
    """Fewer have finished to judge by: less is saved, and single orders lose much."""
    saved, lost, _ = saved_lost_best("Depo, a random search", Pruner(), trials=14)
    assert 0.22 <= mean(saved) < 0.36
    assert mean(lost) <= 0.02


def test_recorded_search_judged_earlier() -> None:
    """Its best runs take off after a tenth to a fifth of their cost; a risk of 0.25 throughout lost 19% here."""
    _, lost, _ = saved_lost_best("Depo, a random search", Pruner(first_progress=0.1), orders=100)
    assert mean(lost) <= 0.03


def test_recorded_search_with_the_other_kinds() -> None:
    pool = "Depo, a random search"
    assert saved_lost_best(pool, Pruner("none"), orders=10) == ([0.0] * 10, [0.0] * 10, [0.0] * 10)
    saved, lost, _ = saved_lost_best(pool, Pruner("median"))
    assert mean(saved) > 0.35 and mean(lost) < 0.01
    saved, lost, _ = saved_lost_best(pool, Pruner("median"), exact=True)
    assert mean(saved) > 0.45 and mean(lost) > 0.02  # noise stops what takes off later
