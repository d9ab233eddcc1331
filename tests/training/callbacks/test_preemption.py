"""A run that stops before its time is up, is put back into SLURM's queue, and goes on as if nothing had been."""

import signal
import time
from pathlib import Path

import psutil
import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.config import TrainingConfig
from sleep_lightning.runs.signals import StopReason
from sleep_lightning.training.callbacks.preemption import requeue, stop_time
from tests.cli.test_fit import assert_same_training
from tests.training.distributed.rank_cases import STOPPED_IN, fit, fit_with_signal


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a stand-in for scontrol was called with, as job 17."""
    program, calls = tmp_path / "bin" / "scontrol", tmp_path / "calls"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    return calls


def step(run: Path) -> int:
    return int(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])


@pytest.mark.process
def test_a_requeued_job_goes_on_to_the_bit(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(fit(whole / "run")) == 0
    command = fit(stopped / "run", "training.requeue=true")
    assert fit_with_signal(signal.SIGUSR1, command) == StopReason.SIGUSR1
    assert step(stopped / "run") == STOPPED_IN
    assert calls.read_text() == "requeue 17\n"
    assert "SLURM job 17 is in the queue again" in capsys.readouterr().err
    assert main(command) == 2  # not started by SLURM: a run is not overwritten
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 100))  # less than the margin
    assert main(command) == StopReason.TIME_LIMIT
    assert step(stopped / "run") == STOPPED_IN + 1
    assert calls.read_text() == "requeue 17\nrequeue 17\n"
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 1000))
    assert main(command) == 0
    assert calls.read_text() == "requeue 17\nrequeue 17\n"
    assert_same_training(whole, stopped)


def test_the_earliest_limit_counts() -> None:
    soon, limited = {"SLURM_JOB_END_TIME": str(time.time() + 1000)}, TrainingConfig(time_limit=60, time_margin=10)
    assert stop_time(TrainingConfig(), {}) is None
    assert left(stop_time(TrainingConfig(), soon)) == pytest.approx(1000 - 120, abs=5)
    assert left(stop_time(limited, soon)) == pytest.approx(1000 - 600, abs=5)
    age = time.time() - psutil.Process().create_time()  # the clock of this machine is not being set meanwhile
    assert left(stop_time(limited, {"SLURM_JOB_END_TIME": "1e12"})) == pytest.approx(3000 - age, abs=5)


def test_a_clock_that_is_set_neither_stops_a_run_nor_lets_it_overrun(monkeypatch: pytest.MonkeyPatch) -> None:
    limited, now = TrainingConfig(time_limit=60, time_margin=10), time.time()
    before = left(stop_time(limited, {}))
    for hours in (2, -1):
        monkeypatch.setattr(time, "time", lambda hours=hours: now + 3600 * hours)
        assert left(stop_time(limited, {})) == pytest.approx(before, abs=5)


def left(deadline: float | None) -> float:
    """Seconds until then."""
    assert deadline is not None
    return deadline - time.monotonic()


def test_only_a_lack_of_time_requeues(calls: Path) -> None:
    asked, plain = TrainingConfig(requeue=True, run_dir="run"), TrainingConfig(run_dir="run")
    assert requeue(asked, StopReason.SIGTERM) is None
    assert requeue(asked, None) is None
    assert requeue(plain, StopReason.SIGUSR1) is None
    assert requeue(asked, StopReason.TIME_LIMIT, {}) is None
    assert not calls.exists()


@pytest.mark.process
def test_a_job_that_cannot_be_requeued_says_why(calls: Path) -> None:
    asked = TrainingConfig(requeue=True, run_dir="run")
    (calls.parent / "bin" / "scontrol").write_text("#!/bin/sh\necho Requested operation disabled >&2; exit 1\n")
    said = requeue(asked, StopReason.SIGUSR1)
    assert said == "SLURM did not requeue job 17: Requested operation disabled"


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"time_limit": 2.0}, r"training\.time_limit=2\.0 minutes must be more than training\.time_margin=2\.0"),
        ({"requeue": True}, r"training\.requeue=true needs a training\.run_dir"),
    ],
)
def test_impossible_limits_are_refused(training: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**training)  # type: ignore[arg-type]
