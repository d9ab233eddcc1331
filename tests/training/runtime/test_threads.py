"""Threads of a rank."""

import os
from collections.abc import Iterator

import pytest
import torch

from sleep_lightning.config import load_experiment
from sleep_lightning.training.distributed.launcher import RankLauncher
from sleep_lightning.training.runtime import threads
from sleep_lightning.training.runtime.threads import choose_threads
from sleep_lightning.training.trainer import build_trainer

SRUN = {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "n",
}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """64 cores, of which this process may use six; torch has found eight."""
    before = torch.get_num_threads()
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(threads, "cores", lambda: 6)
    torch.set_num_threads(8)
    yield monkeypatch
    torch.set_num_threads(before)


@pytest.mark.parametrize(("configured", "ranks", "expected"), [(None, 1, 6), (None, 2, 3), (None, 8, 1), (7, 2, 7)])
def test_cores_are_shared(configured: int | None, ranks: int, expected: int) -> None:
    assert choose_threads(configured, ranks) == expected == torch.get_num_threads()
    assert choose_threads(configured, ranks) == expected  # also when asked again


def test_fewer_stay(machine: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    assert choose_threads() == 2
    machine.setenv("OMP_NUM_THREADS", "2")
    assert choose_threads(None, 4) == 2
    assert choose_threads(5, 4) == 5


def test_tasks_that_srun_gave_cores_of_their_own(machine: pytest.MonkeyPatch) -> None:
    for name, value in SRUN.items():
        machine.setenv(name, value)
    assert choose_threads(None, 2) == 3
    machine.setenv("SLURM_CPUS_PER_TASK", "5")
    assert choose_threads(None, 2) == 5
    machine.setenv("SLURM_CPUS_PER_TASK", "64")
    assert choose_threads(None, 2) == 6


def test_the_launcher_keeps_what_is_configured(machine: pytest.MonkeyPatch) -> None:
    experiment = load_experiment(None, ["training.devices=2", "training.accelerator=cpu", "training.threads=5"])
    launcher = build_trainer(experiment).strategy.launcher
    assert isinstance(launcher, RankLauncher)
    machine.setattr(launcher, "_call_children_scripts", lambda: None)
    assert launcher.launch(torch.get_num_threads) == 5
    launcher.threads = None
    assert launcher.launch(torch.get_num_threads) == 3
