"""Objectives and bounds on whatever a run logs."""

from math import nan

import pytest

from sleep_lightning.sweep.measures import check_measure, is_share, measured, metric_of, pruner_of
from tests.sweep.sweeps import small_sweep

SUMMARY = {"exact_match": 0.5, "measured": {"energy_j": None, "peak_memory_bytes": 2e9}, "metrics": {"mine/x": 3}}


def test_a_measure_is_found_wherever_the_summary_has_it() -> None:
    assert measured(SUMMARY, "exact_match") == 0.5
    assert measured(SUMMARY, "peak_memory_bytes") == 2e9
    assert measured(SUMMARY, "mine/x") == 3
    assert measured(SUMMARY, "energy_j") is None and measured({}, "mine/x") is None
    assert (metric_of("loss"), metric_of("energy_j"), metric_of("mine/x")) == ("val/loss", "cost/energy_j", "mine/x")
    assert is_share("val/hop_3/exact_match") and not is_share("val/loss")


@pytest.mark.parametrize(
    ("name", "logs_more", "known"),
    [
        ("tokens_per_s", False, True),
        ("val/hop_3/exact_match", False, True),
        ("mine/x", True, True),
        ("mine/x", False, False),
        ("speed", True, False),
    ],
)
def test_what_nobody_logs_is_refused(name: str, logs_more: bool, known: bool) -> None:
    if known:
        check_measure("objectives", name, logs_more=logs_more)
        return
    with pytest.raises(ValueError, match=rf"objectives\.{name} is not a known metric; use one of exact_match"):
        check_measure("objectives", name, logs_more=logs_more)


def test_a_bound_excludes_a_finished_trial() -> None:
    sweep = small_sweep(constraints={"peak_memory_bytes": 1e9, "state_bytes": 1e12})
    assert sweep.why_excluded({"peak_memory_bytes": 2e9}) == "peak_memory_bytes 2 GB is above 1 GB"
    assert sweep.why_excluded({"peak_memory_bytes": 5e8}) is None
    assert sweep.why_excluded({"exact_match": nan}) == "peak_memory_bytes, which constraints bound, was not logged"


def test_curves_of_accuracy_stop_no_trial_that_is_judged_by_something_else() -> None:
    judged = {"exact_match": "maximize", "energy_j": "minimize"}
    assert pruner_of(small_sweep(pruner="frontier").spec) == "frontier"
    assert pruner_of(small_sweep(pruner="frontier", objectives=judged).spec) == "none"
