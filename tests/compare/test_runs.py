"""The runs of a comparison, with stand-ins for training."""

import sys
from pathlib import Path

import psutil
import pytest

from sleep_lightning.compare.arms import build_arms
from sleep_lightning.compare.runs import execute, plan_runs
from sleep_lightning.config import load_experiment
from sleep_lightning.runs import backoff
from sleep_lightning.runs.infrastructure import Cause
from sleep_lightning.runs.process import FitProcess, Watched
from tests.cli.cli import ROOT
from tests.sweep import stand_in


@pytest.mark.process
@pytest.mark.long
def test_a_run_that_the_machine_failed_is_started_again_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.01)
    base = load_experiment(ROOT / "conf" / "depo.yaml", ["tracking.enabled=false"])
    [first, second] = plan_runs(base, build_arms(base, ["n1", "n2"]), [0], tmp_path)
    ends = {first.directory.path: [int(Cause.DISK)] * 2, second.directory.path: [3]}
    fit = [sys.executable, "-S", stand_in.__file__, "fit"]

    def command(self: FitProcess) -> list[str]:
        left = ends[self.directory.path]
        exits = [sys.executable, "-S", "-c", f"raise SystemExit({left.pop()})"] if left else None
        return exits or [*fit, str(self.directory.path), "1", "0"]

    monkeypatch.setattr(FitProcess, "command", command)
    said: list[str] = []
    active = list(execute([first, second], 1, 1, said.append))
    assert first.summary is not None and second.summary is None
    assert [line.partition(": ")[0] for line in said] == ["n1 seed 0"] * 2
    assert all("exit code 74: " in line and "started again in " in line for line in said)
    assert all(active), "a run that waits is still active"


@pytest.mark.process
def test_a_run_that_a_dead_comparison_has_just_started_is_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process had no lock yet when this comparison looked for one."""
    base = load_experiment(ROOT / "conf" / "depo.yaml", ["tracking.enabled=false"])
    [run] = plan_runs(base, build_arms(base, ["n1"]), [0], tmp_path)
    run.directory.path.mkdir()
    fit = [sys.executable, "-S", stand_in.__file__, "fit", str(run.directory.path), "1", "0"]
    found = [None, lambda: Watched(psutil.Popen(fit))]
    monkeypatch.setattr(FitProcess, "orphan", lambda self: (one := found.pop(0)) and one() if found else None)
    monkeypatch.setattr(FitProcess, "command", lambda self: [sys.executable, "-S", "-c", "raise SystemExit(2)"])
    said: list[str] = []
    list(execute([run], 1, 1, said.append))
    assert run.summary is not None and not said
