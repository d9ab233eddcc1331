"""The processes that train one model together: who they are, what each takes of a batch, what they tell each other.

Lightning trains in each of them as if it were alone. Its own DDP would not do: it synchronises gradients in a forward
through its wrapper (a step here has many backward calls and calls the blocks themselves), broadcasts in every step
whether one of them was told to stop, and does so in its signal handler as well, where it waits forever.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from torch import Tensor, distributed

from sleep_lightning.config import TrainingConfig
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training.distributed.slurm_step import SlurmStep

T = TypeVar("T")
TIMEOUT = timedelta(minutes=5)
"""How long ranks wait for each other: for the slowest to start, and in every exchange."""


@dataclass(frozen=True)
class Ranks:
    """This process among all that train the model.

    Attributes:
        rank: its number, from 0; the first one writes everything.
        size: how many they are.
        local_rank: its number on its node.
        local_size: how many are on its node.
        address: host where the first one listens.
        port: port there; 0: there is nobody else.
        started: False if the others are still to be started, by this one.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    started: bool = True

    @classmethod
    def of(cls, training: TrainingConfig, environment: Mapping[str, str] = os.environ) -> "Ranks":
        """The ranks torchrun or srun started us among; without them the first of those that we start on this machine.

        Raises:
            ValueError: the configuration wants others than there are, or more GPUs than there are.
        """
        asked = f"training.devices={training.devices} x training.num_nodes={training.num_nodes}"
        step = SlurmStep.of(environment)
        wants_gpus = training.accelerator != "cpu" and (present := torch.cuda.device_count())
        if wants_gpus and training.devices > present:
            more = ", or have srun show all GPUs of a node to each of its tasks (--gpus-per-node)" if step else ""
            raise ValueError(
                f"training.devices={training.devices}: torch sees {present} CUDA devices here; use those{more}"
            )
        if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= environment.keys():
            rank, size, local_rank = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
            local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
            if (size, local_size) != (training.processes, training.devices):
                raise ValueError(
                    f"{asked} but {size} processes were started, {local_size} on this node; set "
                    f"training.devices={local_size} and training.num_nodes={size // local_size}, or start others"
                )
            address, port = environment.get("MASTER_ADDR", "127.0.0.1"), int(environment.get("MASTER_PORT", 0))
            return cls(rank, size, local_rank, local_size, address, port)
        if step is not None:
            step.check(training)
            return cls(step.rank, step.size, step.local_rank, training.devices, step.address(), step.port())
        if training.num_nodes > 1:
            raise ValueError(
                f"{asked} needs a start on every node, for example: torchrun --nnodes {training.num_nodes} "
                f"--nproc-per-node {training.devices} -m sleep_lightning fit ..., or under SLURM: srun --nodes="
                f"{training.num_nodes} --ntasks-per-node={training.devices} python -m sleep_lightning fit ..."
            )
        if training.devices == 1:
            return cls()
        return cls(size=training.devices, local_size=training.devices, port=find_free_network_port(), started=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def variables(self, rank: int) -> dict[str, str]:
        """The environment, named as by torchrun, that makes a process on this machine that rank."""
        size = str(self.size)
        numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        return numbers | {"MASTER_ADDR": self.address, "MASTER_PORT": str(self.port)}

    @contextmanager
    def connected(self, kind: str) -> Iterator[None]:
        """Able to exchange what the methods below do, from devices of a kind (``cpu``, ``cuda``)."""
        if self.size == 1:
            yield
            return
        device = torch.device("cuda", self.local_rank) if kind == "cuda" else None
        if device is not None:
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "gloo" if device is None else "nccl",
            init_method=f"tcp://{self.address}:{self.port}",
            rank=self.rank,
            world_size=self.size,
            timeout=TIMEOUT,
            device_id=device,
        )
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def share(self, batch: TaskBatch) -> TaskBatch:
        """The rows of a batch that are this rank's; the shares of all, in their order, are the batch."""
        rows = len(batch.tokens)
        return batch.rows(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def told_by_first(self, content: T) -> T:
        """What the first rank passes here."""
        contents = [content]
        if self.size > 1:
            distributed.broadcast_object_list(contents)
        return contents[0]

    def gather(self, content: list[T]) -> list[T]:
        """What all ranks pass here: their first, their second, ..., each in the order of ranks."""
        if self.size == 1:
            return content
        contents: list[list[T]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(contents, content)
        return [x for of_all in zip(*contents, strict=True) for x in of_all]


ALONE = Ranks()


@torch.no_grad()
def copy_from_first(parameters: list[torch.nn.Parameter]) -> None:
    """Give all ranks the weights of the first: a seed does not make the same bits on every kind of machine."""
    flat = torch.cat([p.flatten() for p in parameters])
    distributed.broadcast(flat, src=0)
    for p, weights in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.copy_(weights.view_as(p))


@torch.no_grad()
def all_reduce_gradients(parameters: list[torch.nn.Parameter], extra: Tensor) -> Tensor:
    """Replace every gradient by its sum over ranks, in one collective, which ``extra`` travels in as well.

    Args:
        parameters: the same ones in all ranks; those that no rank has a gradient of keep none.
        extra: a few numbers ``[n]``.

    Returns:
        The sum of ``extra`` over ranks.
    """
    learning = [p for p in parameters if p.requires_grad]
    used = extra.new_tensor([p.grad is not None for p in learning], dtype=extra.dtype)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
    flat = torch.cat([x.flatten().to(learning[0].dtype) for x in (*gradients, used, extra)])
    distributed.all_reduce(flat)
    *sums, used, extra = flat.split([*(p.numel() for p in learning), len(learning), len(extra)])
    for i, (p, gradient, total) in enumerate(zip(learning, gradients, sums, strict=True)):
        gradient.copy_(total.view_as(gradient))  # in place: a CUDA graph knows only its own tensors
        if p.grad is None and used[i] > 0:
            p.grad = gradient
    return extra
