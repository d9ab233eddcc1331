"""Intervals of few seeds: where their percentiles lie, and how often they hold a known truth."""

import numpy as np
import pytest

from sleep_lightning.sweep.bootstrap import LEAST_SEEDS, Resamples, interval_name, tail


def test_percentiles_lie_where_student_and_the_variance_of_few_seeds_put_them() -> None:
    """Of 95% intervals."""
    expected = {5: 0.0010, 10: 0.0086, 20: 0.0159, 40: 0.0203, 100: 0.0231}
    assert {n: tail(n) for n in expected} == pytest.approx(expected, abs=1e-4)
    assert tail(10**6) == pytest.approx(0.025, abs=1e-4)


def test_five_seeds_are_the_fewest_whose_resamples_reach_that_far() -> None:
    assert all(tail(n) < n**-n for n in range(2, LEAST_SEEDS))
    assert tail(LEAST_SEEDS) > LEAST_SEEDS**-LEAST_SEEDS
    assert (interval_name(4), interval_name(5)) == ("range of resamples", "95% interval")


def test_all_resamples_of_few_seeds_and_some_of_more() -> None:
    three = Resamples.of(3, 2000)
    assert len(three.chances) == 10
    assert three.chances.sum() == pytest.approx(1)
    assert dict(zip(map(tuple, (3 * three.weights).round().tolist()), three.chances.tolist(), strict=True))[
        1, 1, 1
    ] == pytest.approx(6 / 27)
    six = Resamples.of(6, 2000)
    assert six.weights.shape == (2000, 6)
    assert six.weights.sum(1) == pytest.approx(np.ones(2000))
    values = np.array([1.0, 5.0, 2.0])
    assert three.interval(three.weights @ values) == pytest.approx((1.0, 5.0))


def test_what_a_resample_does_not_determine_may_be_anything() -> None:
    two = Resamples.of(2, 2000)
    assert two.interval(np.array([1.0, np.nan, 2.0])) == (-np.inf, np.inf)


@pytest.mark.parametrize(("seeds", "least"), [(5, 0.91), (10, 0.92)])
def test_a_mean_is_held_nearly_as_often_as_stated(seeds: int, least: float) -> None:
    """Plain percentiles hold it in 82% and 90%."""
    resamples, chance, worlds = Resamples.of(seeds, 500), np.random.default_rng(0), 500
    held = 0
    for _ in range(worlds):
        low, high = resamples.interval(resamples.weights @ chance.normal(size=seeds))
        held += low <= 0 <= high
    assert least <= held / worlds <= 0.98
