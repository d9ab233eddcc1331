"""Runs as processes of this machine (the supervisor's tests run many)."""

import sys
import time
from pathlib import Path

import pytest

from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.infrastructure import Cause, Ended
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.launchers import LocalLauncher
from tests.sweep.sweeps import small_sweep


@pytest.mark.process
def test_what_does_not_save_in_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    monkeypatch.setattr(FitProcess, "command", lambda self: [sys.executable, "-S", "-c", code])
    run, launcher = FitProcess(small_sweep().base, RunDirectory(tmp_path / "0000-seed0")), LocalLauncher(tmp_path, 1)
    launcher.submit(run)
    while run.last_words() != "deaf":
        time.sleep(0.01)
    launcher.stop([run], seconds=0.2)
    assert launcher.poll(run) == Ended("killed by signal 9, perhaps out of memory", Cause.MEMORY)


def test_a_run_of_another_machine_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory(tmp_path / "0000-seed0")
    directory.path.mkdir()
    run = FitProcess(small_sweep().base, directory)
    with directory.lock():
        assert run.orphan() is not None
        monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
        assert run.orphan() is None, "a number of a process of another machine was taken for one of ours"
        with pytest.raises(ValueError, match=r"is being trained by process \d+ on .*: wait for it"):
            LocalLauncher(tmp_path, threads=1)
        with pytest.raises(ValueError, match=r"is being trained by process \d+ on "):
            directory.lock()
    LocalLauncher(tmp_path, threads=1)
