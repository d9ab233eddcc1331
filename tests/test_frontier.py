"""The frontier against brute force, the hypervolume against Monte Carlo and Optuna's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from sleep_lightning.frontier import GrowingArea, Point, best_value, frontier, hypervolume

# few distinct numbers, so that ties are common
NUMBERS = st.one_of(st.integers(0, 6).map(float), st.floats(0, 6), st.sampled_from([math.nan, math.inf, -math.inf]))
POINTS = st.lists(st.builds(Point, NUMBERS, NUMBERS), max_size=25)


def dominates(a: Point, b: Point) -> bool:
    return a.cost <= b.cost and a.value >= b.value and a != b


def brute_force(points: list[Point]) -> set[Point]:
    finite = [p for p in points if math.isfinite(p.cost) and math.isfinite(p.value)]
    return {p for p in finite if not any(dominates(q, p) for q in finite)}


@given(POINTS)
def test_equals_brute_force(points: list[Point]) -> None:
    found = [points[i] for i in frontier(points)]
    assert len(found) == len(set(found))
    assert set(found) == brute_force(points)
    assert found == sorted(found)


@given(POINTS)
def test_hypervolume_is_optunas(points: list[Point]) -> None:
    reference = Point(5.0, 1.0)
    inside = [p for p in brute_force(points) if p.cost < 5 and p.value > 1]
    losses = np.array([[p.cost, -p.value] for p in inside]).reshape(-1, 2)
    expected = compute_hypervolume(losses, np.array([5.0, -1.0])) if inside else 0.0
    assert hypervolume(points, reference) == pytest.approx(expected)


@given(POINTS)
def test_the_area_grows_to_the_hypervolume(points: list[Point]) -> None:
    growing = GrowingArea(reference := Point(5.0, 1.0))
    for i, point in enumerate(points, 1):
        assert growing.add(point) == pytest.approx(hypervolume(points[:i], reference)) == growing.area


@given(POINTS, st.floats(0, 6))
def test_best_value_is_the_best_that_costs_no_more(points: list[Point], cost: float) -> None:
    affordable = [p.value for p in brute_force(points) if p.cost <= cost]
    assert best_value(points, cost) == max(affordable, default=-math.inf)


def test_by_hand() -> None:
    points = [Point(1, 0.2), Point(2, 0.5), Point(2, 0.4), Point(3, 0.5), Point(4, 0.9), Point(math.nan, 1)]
    assert frontier(points) == [0, 1, 4]
    assert hypervolume(points, Point(5, 0)) == pytest.approx(0.2 + 0.5 * 2 + 0.9)
    assert frontier([]) == []
    assert hypervolume([], Point(1, 0)) == 0
    assert frontier([Point(1, 1)] * 3) == [0]


def test_the_frontier_is_the_best_for_as_little() -> None:
    points = [Point(*point) for point in ((3, 0.5), (1, 0.2), (2, 0.6), (1, 0.4), (4, 0.7))]
    assert [points[i] for i in frontier(points)] == [(1, 0.4), (2, 0.6), (4, 0.7)]
