"""Learning curves of trials, which the pruner and the reports read, reach to the end of training."""

from pathlib import Path

import pytest
from optuna.trial import create_trial

from sleep_lightning.frontier import Point
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.history import write_history
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.ledger import Ledger
from sleep_lightning.sweep.pruning import Pruner
from sleep_lightning.sweep.report.content import build_report
from sleep_lightning.sweep.trial import mean_curve
from tests.sweep.studies import ToldStudy


@pytest.mark.parametrize(
    ("recorded", "whole"),
    [
        ([], [(8.0, 0.9)]),  # no validation was due
        ([[4.0, 0.5]], [(4.0, 0.5), (8.0, 0.9)]),
        ([[4.0, 0.5], [8.0, 0.9]], [(4.0, 0.5), (8.0, 0.9)]),
    ],
)
def test_a_curve_recorded_by_an_earlier_version_ends_with_the_result(
    tmp_path: Path, recorded: list[list[float]], whole: list[tuple[float, float]]
) -> None:
    told = ToldStudy(tmp_path)
    told.finish(2, 0.9, 8.0)
    told.prune(1, 3.0, 6.0)
    complete, stopped = told.study.get_trials()
    old = create_trial(value=None, values=complete.values, user_attrs=complete.user_attrs | {"curve": recorded})
    curves = Ledger([old, stopped]).curves
    assert curves == [whole]
    for kind in ("frontier", "median"):
        Pruner(kind, warm_up=1).why_stop([Point(5.0, 0.0), Point(9.0, 0.0)], 12.0, curves)  # type: ignore[arg-type]
    rows = build_report(told.study, tmp_path).trials
    assert [row.curve for row in rows] == [((4.0, 0.45), (8.0, 0.9)), ((3.0, 0.1),)]


def test_a_mean_over_seeds_goes_as_far_as_they_validated_together(tmp_path: Path) -> None:
    told, runs = ToldStudy(tmp_path), []
    for seed, curve in enumerate([[(1, 0.1), (2, 0.2), (3, 0.3)], [(1, 0.3), (2, 0.4), (2.5, 0.5)], []]):
        runs.append(FitProcess(told.sweep.base, RunDirectory(tmp_path / f"run{seed}")))
        runs[-1].directory.path.mkdir()
        rows = [{"step": cost, "cost/train_flops": cost, "exact_match": value} for cost, value in curve]
        write_history(runs[-1].directory.history, rows)
    assert mean_curve(runs) == [(1, pytest.approx(0.2)), (2, pytest.approx(0.3))]
    assert mean_curve(runs[2:]) == []
