"""Which rank a process is, without SLURM: from variables as SLURM 22.05 sets them."""

from pathlib import Path

import pytest
import torch

from sleep_lightning.config import TrainingConfig
from sleep_lightning.training.distributed.place import Place, detect_environment
from sleep_lightning.training.distributed.srun import SrunEnvironment, SrunStep

JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "3", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NNODES": "2"}
"""In the script of a job for three tasks, where nothing was started yet."""


def training(devices: int = 1, num_nodes: int = 1, accelerator: str = "cpu") -> TrainingConfig:
    return TrainingConfig(batch_size=24, devices=devices, num_nodes=num_nodes, accelerator=accelerator)  # type: ignore[arg-type]


def step(per_node: str, size: int, nodes: str = "n[1-2]", rank: int = 0, local: int = 0, **more: str) -> dict[str, str]:
    own = {"SLURM_STEP_NUM_TASKS": str(size), "SLURM_STEP_TASKS_PER_NODE": per_node, "SLURM_STEP_NODELIST": nodes}
    return JOB | own | {"SLURM_STEP_ID": "0", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local)} | more


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "scontrol"
    program.write_text('#!/bin/sh\n[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return program


def environment(variables: dict[str, str]) -> SrunEnvironment:
    found = SrunStep.of(variables)
    assert found is not None
    return SrunEnvironment(found)


@pytest.mark.process
def test_a_task_on_the_second_node_finds_the_first(scontrol: Path) -> None:
    task = step("2(x2)", 4, rank=3, local=1)
    place, ours = Place.of(training(2, 2), task), environment(task)
    assert (place.rank, place.size, place.local_rank, place.local_size) == (3, 4, 1, 2)
    assert (ours.global_rank(), ours.world_size(), ours.local_rank()) == (3, 4, 1)
    assert (ours.main_address, ours.creates_processes_externally, ours.auto_requeue) == ("n1", True, False)
    assert ours.main_port == environment(step("2(x2)", 4)).main_port > 1024
    assert ours.main_port != environment(step("2(x2)", 4, SLURM_STEP_ID="1")).main_port


def test_the_master_of_the_environment_wins(scontrol: Path) -> None:
    ours = environment(step("1(x2)", 2, MASTER_ADDR="10.0.0.1", MASTER_PORT="4711"))
    assert (ours.main_address, ours.main_port) == ("10.0.0.1", 4711)


def test_on_one_node_no_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Place.of(training(2), step("2", 2, nodes="n1")).size == 2
    assert environment(step("2", 2, nodes="n1")).main_address == "127.0.0.1"


@pytest.mark.process
def test_without_scontrol_it_is_said_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"first host of n\[1-2\] \(.*scontrol.*\); export MASTER_ADDR=<host"):
        Place.of(training(1, 2), step("1(x2)", 2))


@pytest.mark.parametrize("variables", [JOB, step("1", 1, nodes="n1")], ids=["script of a job", "srun -n1"])
def test_one_task_is_alone_and_starts_the_others_itself(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Place.of(training(), variables) == Place()
    assert Place.of(training(2), variables) == Place(size=2, local_size=2)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not detect_environment().creates_processes_externally
    with pytest.raises(ValueError, match="under SLURM: srun --nodes=2 --ntasks-per-node=1 python"):
        Place.of(training(1, 2), variables)


def test_a_step_of_several_tasks_is_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in step("2", 2, nodes="n1").items():
        monkeypatch.setenv(name, value)
    found = detect_environment()
    assert isinstance(found, SrunEnvironment)
    with pytest.raises(ValueError, match=r"srun started 2 tasks on 1 node \(2\); use training.devices=2"):
        found.validate_settings(num_devices=1, num_nodes=1)
    found.validate_settings(num_devices=2, num_nodes=1)


@pytest.mark.parametrize(
    ("per_node", "size", "asked", "message"),
    [
        ("2", 2, (1, 1), r"srun started 2 tasks on 1 node \(2\); use training.devices=2 training.num_nodes=1, or srun"),
        ("2", 2, (1, 2), r"training.num_nodes=2 but srun started 2 tasks on 1 node \(2\)"),
        ("2(x2)", 4, (2, 1), r"4 tasks on 2 nodes \(2, 2\); use training.devices=2 training.num_nodes=2, or srun"),
        ("2,1", 3, (3, 1), r"\(2, 1\); use srun --nodes=1 --ntasks-per-node=3$"),
    ],
)
def test_other_tasks_than_asked_for_are_refused_by_all(
    per_node: str, size: int, asked: tuple[int, int], message: str
) -> None:
    for rank in range(size):
        with pytest.raises(ValueError, match=message):
            Place.of(training(*asked), step(per_node, size, rank=rank))


def test_torchrun_inside_srun_is_torchrun() -> None:
    variables = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "a"}
    assert Place.of(training(1, 2), step("1(x2)", 2) | variables).rank == 1


def test_a_gpu_that_a_task_does_not_see_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"torch sees 1 CUDA devices here; use those, or .*\(--gpus-per-node\)$"):
        Place.of(training(2, accelerator="auto"), step("2", 2))
