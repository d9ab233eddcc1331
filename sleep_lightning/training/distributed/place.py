"""Which rank this process is, before anything is connected: from what torchrun, srun or Lightning's launcher set."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from sleep_lightning.config import TrainingConfig
from sleep_lightning.training.distributed.srun import SrunEnvironment, SrunStep


@dataclass(frozen=True)
class Place:
    """This process among all that train the model.

    Attributes:
        rank: global rank, from 0; rank zero writes everything.
        size: world size.
        local_rank: rank on its node.
        local_size: number of ranks on its node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def of(cls, training: TrainingConfig, environment: Mapping[str, str] = os.environ) -> "Place":
        """The place that torchrun, srun or Lightning's launcher gave this process; else rank zero, which will launch
        the other ranks of its node.

        Raises:
            ValueError: other processes were started than the configuration asks for, or it asks for more GPUs than
                torch sees.
        """
        step = SrunStep.of(environment)
        _check_gpus(training, step)
        if "LOCAL_RANK" in environment:
            return cls._launched(training, environment)
        if step is not None:
            step.check(training)
            step.address()
            return cls(step.rank, step.size, step.local_rank, training.devices)
        if training.num_nodes > 1:
            raise ValueError(
                f"{_asked(training)} needs a start on every node, for example: torchrun --nnodes {training.num_nodes} "
                f"--nproc-per-node {training.devices} -m sleep_lightning fit ..., or under SLURM: srun --nodes="
                f"{training.num_nodes} --ntasks-per-node={training.devices} python -m sleep_lightning fit ..."
            )
        return cls(size=training.devices, local_size=training.devices)

    @classmethod
    def _launched(cls, training: TrainingConfig, environment: Mapping[str, str]) -> "Place":
        """By torchrun, or by Lightning's launcher on this node, which sets no RANK."""
        local_rank, size = int(environment["LOCAL_RANK"]), int(environment.get("WORLD_SIZE", training.processes))
        rank = int(environment.get("RANK", local_rank))
        local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
        if (size, local_size) != (training.processes, training.devices):
            raise ValueError(
                f"{_asked(training)} but {size} processes were started, {local_size} on this node; set "
                f"training.devices={local_size} and training.num_nodes={size // local_size}, or start others"
            )
        return cls(rank, size, local_rank, local_size)

    @property
    def first(self) -> bool:
        """Whether this is rank zero, the process that writes."""
        return self.rank == 0


def _asked(training: TrainingConfig) -> str:
    return f"training.devices={training.devices} x training.num_nodes={training.num_nodes}"


def _check_gpus(training: TrainingConfig, step: SrunStep | None) -> None:
    present = torch.cuda.device_count() if training.accelerator != "cpu" else 0
    if present and training.devices > present:
        more = ", or have srun show all GPUs of a node to each of its tasks (--gpus-per-node)" if step else ""
        raise ValueError(
            f"training.devices={training.devices}: torch sees {present} CUDA devices here; use those{more}"
        )


def detect_environment() -> ClusterEnvironment:
    """Lightning's cluster environment of this process: torchrun's, that of an ``srun`` step, or its own launcher's.

    A single task of ``srun``, and a job's script, launch the other ranks of their node themselves.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if "LOCAL_RANK" not in os.environ and (step := SrunStep.of(os.environ)) is not None:
        return SrunEnvironment(step)
    return LightningEnvironment()
