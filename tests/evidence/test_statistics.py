"""Intervals and permutation tests against what is known."""

from itertools import permutations
from statistics import mean

import pytest

from sleep_lightning.evidence.statistics import Interval, difference, holm, least_p, ordered_p, two_sided_p


def test_an_interval_is_students() -> None:
    found = Interval.of([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # t(0.975, 2), standard deviation 1
    assert str(found.within(0, 3)) == "2.000 [0.000, 3.000]"
    assert str(Interval.of([0.5])) == str(Interval.of([0.5]).within(0, 1)) == "0.500"
    with pytest.raises(ValueError, match="at least one value"):
        Interval.of([])


def test_an_ordering_is_tested_exactly() -> None:
    levels = [[0.1, 0.2], [0.3, 0.25], [0.2, 0.9]]

    def rise(levels: list[tuple[float, ...]]) -> float:
        return sum(i * mean(values) for i, values in enumerate(levels))

    observed, by_seed = rise([tuple(x) for x in levels]), list(zip(*levels, strict=True))
    everything = [
        rise(list(zip(a, b, strict=True))) for a in permutations(by_seed[0]) for b in permutations(by_seed[1])
    ]
    assert len(everything) == 36
    expected = sum(value >= observed - 1e-12 for value in everything) / 36
    assert ordered_p(levels) == pytest.approx(expected)


def test_the_clearest_ordering_gives_the_least_p() -> None:
    assert ordered_p([[0.1] * 3, [0.2] * 3, [0.3] * 3]) == pytest.approx(1 / 216)
    assert ordered_p([[0.3] * 3, [0.2] * 3, [0.1] * 3]) == pytest.approx(1.0)
    assert ordered_p([[0.1] * 5, [0.2] * 5]) == pytest.approx(1 / 32)
    assert ordered_p([[0.5] * 3, [0.5] * 3]) == 1.0
    assert ordered_p([[0.1], [0.2], [0.3]]) == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    "levels",
    [[[0.1] * 3, [0.2] * 3, [0.3] * 3], [[0.1, 0.2, 0.5], [0.3, 0.4, 0.5]], [[0.1, 0.1], [0.1, 0.2], [0.3, 0.3]]],
)
def test_no_values_with_such_ties_give_less_than_the_least_p(levels: list[list[float]]) -> None:
    assert ordered_p(levels) == pytest.approx(least_p(levels))
    assert least_p(levels) <= min(ordered_p(list(order)) for order in permutations(levels))


def test_levels_that_do_not_matter_are_seldom_called_ordered() -> None:
    """Of all rearrangements of one table, at most a share p has a p so small: the test is valid."""
    seeds = [(0.1, 0.4, 0.2), (0.3, 0.35, 0.9)]
    ps = [
        ordered_p([list(x) for x in zip(a, b, strict=True)])
        for a in permutations(seeds[0])
        for b in permutations(seeds[1])
    ]
    for limit in (0.05, 0.1, 0.25, 0.5):
        assert sum(p <= limit for p in ps) / len(ps) <= limit


def test_differences_are_paired() -> None:
    assert difference([0.9, 0.5], [0.8, 0.4]).mean == pytest.approx(0.1)
    assert difference([0.9, 0.5], [0.8, 0.4]).low == pytest.approx(0.1)


def test_both_directions_are_tested() -> None:
    rising = [[0.1, 0.2, 0.3, 0.1], [0.3, 0.4, 0.5, 0.2]]
    assert two_sided_p(rising) == two_sided_p(rising[::-1]) == 2 / 2**4
    assert two_sided_p([[0.5, 0.5], [0.5, 0.5]]) == 1.0


def test_many_claims_are_corrected_by_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # as R's p.adjust has it
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []
