"""A run seen from outside, through the files it leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.files import write_json
from sleep_lightning.runs.history import append_to_history, write_history
from sleep_lightning.runs.process import FitProcess, Watched
from sleep_lightning.runs.signals import STOP_SIGNALS
from tests.sweep.sweeps import small_sweep


def test_a_run_that_saved_upon_sigterm_counts_to_its_last_step(tmp_path: Path) -> None:
    run = FitProcess(small_sweep().base, RunDirectory(tmp_path))
    write_history(run.directory.history, [{"step": 2, "cost/train_flops": 2e6, "exact_match": 0.1}])
    scores = {"exact_match": 0.1, "token_accuracy": 0.5, "loss": 1.0, "wall_s": 1.0}
    write_json(run.directory.summary, {"status": "KILLED", "train_flops": 3_000_000} | scores)
    assert run.summary is None
    assert run.flops_spent == 3e6
    append_to_history(run.directory.history, {"step": 4, "cost/train_flops": 4e6, "exact_match": 0.1})
    assert run.flops_spent == 4e6, "it went on since"


@pytest.mark.process
def test_a_run_does_not_take_the_place_of_who_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep under srun or torchrun: its runs are no ranks of that job."""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    monkeypatch.setenv("LOCAL_SCRATCH", "/scratch")
    listing = "import json, os; print(json.dumps(dict(os.environ)))"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "--no-python"]
    done = subprocess.run([*torchrun, sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)
    assert {"RANK", "GROUP_RANK", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"} <= theirs.keys()
    before = dict(os.environ)
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    environment = FitProcess(small_sweep().base, RunDirectory(tmp_path)).environment(3)
    assert environment["OMP_NUM_THREADS"] == "3" and environment["LOCAL_SCRATCH"] == "/scratch"
    new = environment.keys() - before.keys() - {"SLEEP_LIGHTNING_TRACKING_URI", "OMP_NUM_THREADS"}
    assert new <= {"TORCH_NCCL_ASYNC_ERROR_HANDLING", "COLUMNS", "LINES"} and "SLURM_STEP_NUM_TASKS" not in environment


@pytest.mark.process
def test_an_adopted_process_that_leads_no_group_is_stopped_with_its_children() -> None:
    """A script's, or torchrun's."""
    child = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])"
    process = psutil.Popen([sys.executable, "-S", "-c", child])
    assert os.getpgid(process.pid) != process.pid
    while not (children := process.children()):
        time.sleep(0.01)
    watched = Watched(psutil.Process(process.pid))
    watched.end()
    watched.wait(10)
    assert not watched.alive() and psutil.wait_procs(children, 10)[0] == children


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_every_signal_that_stops_a_run_is_named(number: signal.Signals, tmp_path: Path) -> None:
    run = FitProcess(small_sweep().base, RunDirectory(tmp_path))
    assert run.why_failed(128 + number) == f"stopped by signal {int(number)} ({number.name}) from outside"


@pytest.mark.process
def test_a_process_whose_last_thread_outlives_its_first_has_an_exit_code() -> None:
    """For a moment it is a zombie that cannot be waited for."""
    code = (
        "import ctypes, os, threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(1), os._exit(3))).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    process = psutil.Popen([sys.executable, "-c", code])
    watched = Watched(process)
    while watched.alive():
        time.sleep(0.01)
    assert process.poll() is None, "its last thread has ended before it was looked at"
    assert watched.exit_code() == 3
    assert not psutil.pid_exists(process.pid)
