"""Limits of this process's memory: one sentence with what is needed, before anything is loaded."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sleep_lightning.config import load_experiment
from sleep_lightning.machine.memory import ADDRESSES, RESIDENT, check_memory, is_limited
from sleep_lightning.training.runtime.memory import check_step
from tests.cli.cli import ROOT

NOWHERE = Path("/nowhere")


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Limit of each resource, to be set."""
    limits: dict[int, int] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda number: (limits.get(number, resource.RLIM_INFINITY), -1))
    return limits


@pytest.mark.parametrize(("number", "least"), [(resource.RLIMIT_AS, ADDRESSES), (resource.RLIMIT_DATA, RESIDENT)])
def test_limits_of_the_shell(number: int, least: int, limit: dict[int, int]) -> None:
    assert not is_limited()
    check_memory(10**12, NOWHERE, NOWHERE)
    limit[number] = least + 10**9
    assert is_limited()
    check_memory(10**9, NOWHERE, NOWHERE)
    with pytest.raises(ValueError, match=rf"{(least + 2e9) / 1e9:.2f} GB are needed; raise it \(ulimit -[vd] unlim"):
        check_memory(2 * 10**9, NOWHERE, NOWHERE)


def test_the_limit_of_a_container(tmp_path: Path, limit: dict[int, int]) -> None:
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "memory.current").write_text("600000000\n")  # mostly files, which the kernel drops
    (tmp_path / "memory.max").write_text("800000000\n")
    check_memory(0, tmp_path, tmp_path / "own")
    (tmp_path / "memory.max").write_text("500000000\n")
    with pytest.raises(ValueError, match=r"limit of 0\.50 GB on this container's .* too low: 0\.60 GB are needed"):
        check_memory(0, tmp_path, tmp_path / "own")


def test_a_step_that_exceeds_the_limit(limit: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, cpu = load_experiment(ROOT / "conf" / "rule110.yaml", ["training.batch_size=8"]), torch.device("cpu")
    state = torch.get_rng_state()
    limit[resource.RLIMIT_AS] = 4 * 10**9
    check_step(experiment, cpu)
    assert torch.equal(state, torch.get_rng_state())
    monkeypatch.setattr("sleep_lightning.training.runtime.memory.predict_step_memory", lambda *_: 10**10)
    with pytest.raises(ValueError, match=r"12\.20 GB are needed; .*; 10\.00 GB of them are for a training step: try"):
        check_step(experiment, cpu)
    limit.clear()
    check_step(experiment, cpu)


@pytest.mark.process
@pytest.mark.parametrize("kilobytes", [300_000, 900_000, 1_200_000, 1_600_000])
def test_one_sentence(kilobytes: int) -> None:
    command = f"ulimit -v {kilobytes}; exec {sys.executable} -m sleep_lightning fit --config conf/rule110.yaml"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"limit of {kilobytes * 1024 / 1e9:.2f} GB on this process's address space" in done.stderr
    assert "2.20 GB are needed; raise it (ulimit -v unlimited)" in done.stderr


@pytest.mark.slow
def test_what_is_needed_is_enough(tmp_path: Path) -> None:
    run = "training.max_steps=2 training.val_every=2 training.val_batches=1 training.batch_size=4"
    places = f"training.run_dir={tmp_path}/run tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    fit = f"{sys.executable} -m sleep_lightning fit --config conf/rule110.yaml {run} {places}"
    command = f"ulimit -v {(ADDRESSES + 200_000_000) // 1024}; exec {fit}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
