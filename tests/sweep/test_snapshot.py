"""When a sweep will be done, by hand."""

from dataclasses import replace

import pytest

from sleep_lightning.runs.progress import RunProgress
from sleep_lightning.sweep.snapshot import RunningTrial, Snapshot, predict_seconds
from tests.sweep.sweeps import small_sweep

RUNNING = RunningTrial(9, {}, run=1, runs=1, progress=RunProgress(3), steps=10, flops_spent=30.0, train_flops=100.0)
NOW = Snapshot((RUNNING,), {"complete": 3, "pruned": 1, "failed": 1}, 0, (), ended_flops=320.0, seconds_left=None)
"""Four trials count and cost 80 each on average, the failed one's price included; one has 70 FLOPs to go."""


def test_new_trials_cost_what_those_before_did() -> None:
    assert NOW.flops_spent == 350
    assert predict_seconds(NOW, small_sweep(trials=10).spec, 2.0) == pytest.approx((70 + 5 * 80) / 2)


def test_what_runs_goes_on_beyond_each_budget() -> None:
    assert predict_seconds(NOW, small_sweep(trials=5).spec, 2.0) == pytest.approx(70 / 2)
    assert predict_seconds(NOW, small_sweep(trials=10, flops=450.0).spec, 2.0) == pytest.approx((70 + 100) / 2)
    assert predict_seconds(NOW, small_sweep(trials=10, flops=300.0).spec, 2.0) == pytest.approx(70 / 2)
    spec = small_sweep(trials=10).spec
    assert predict_seconds(replace(NOW, seconds_left=20.0), spec, 2.0) == pytest.approx(20 + 70 / 2)
    assert predict_seconds(replace(NOW, seconds_left=-5.0), spec, 2.0) == pytest.approx(70 / 2)


def test_a_grid_ends_with_its_last_point() -> None:
    spec = replace(small_sweep(trials=10).spec, sampler="grid")
    assert predict_seconds(replace(NOW, waiting=2), spec, 2.0) == pytest.approx((70 + 2 * 80) / 2)


def test_unknown_until_something_was_measured() -> None:
    spec, first = small_sweep(trials=3).spec, replace(NOW, ended={}, ended_flops=0.0)
    assert predict_seconds(first, spec, 0.0) is None
    assert predict_seconds(replace(first, running=()), spec, 2.0) is None
    assert predict_seconds(first, spec, 2.0) == pytest.approx((70 + 2 * 100) / 2)
