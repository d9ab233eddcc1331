"""What ranks that shard a model are compared on with one process; run as a module, this is one of the ranks."""

import os
import shutil
import signal
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from sleep_lightning.__main__ import main
from sleep_lightning.training import optimizer as optimizers
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.distributed.exchange import Exchange
from sleep_lightning.training.distributed.sharded_muon import local, map_whole
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.trainer import build_trainer, quiet_lightning
from tests.training.distributed.rank_cases import (
    ALONE,
    GRADIENTS,
    collectives,
    experiment,
    fit,
    fit_with_signal,
    here,
    scores,
    train,
)

STEPS: dict[str, tuple[list[str], int | None]] = GRADIENTS | {"clipped": (["training.clip_norm=0.01"], None)}
KEPT = ("full", "k=2, accumulated", "pass checkpoints")
"""Cases that fast tests also run with weights that stay gathered for a whole step."""
UNEVEN = [torch.arange(12.0).view(3, 4), torch.ones(1, 4), torch.arange(10.0).view(5, 2)]
DROPS = "training.reshard_after_forward=true"


def sharded(ranks: Exchange) -> list[str]:
    return ["training.sharding=full"] if ranks.size > 1 else []


def orthogonalize(x_NRC: Tensor) -> Tensor:
    """Newton-Schulz in float64: in bf16, rounding of its input would hide mistakes."""
    a, b, c = optimizers.NEWTON_SCHULZ
    x = x_NRC / x_NRC.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(optimizers.NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def first_step(name: str, ranks: Exchange = ALONE, *more: str) -> dict[str, Tensor | None]:
    """Gradients of the first step, and the weights after it, in float64."""
    overrides, k = STEPS[name]
    rounded, optimizers.orthogonalize = optimizers.orthogonalize, orthogonalize
    try:
        module = train(experiment([*overrides, *more], ranks), k)
    finally:
        optimizers.orthogonalize = rounded
    found: dict[str, Tensor | None] = {}
    for name, p in module.model.named_parameters():
        found[name], found[f"{name}.grad"] = whole(p.detach()), None if p.grad is None else whole(p.grad)
    return found


def lower_precision(ranks: Exchange = ALONE) -> dict[str, Tensor]:
    """Gradients in bf16."""
    quiet_lightning()
    e = experiment(["training.precision=bf16", "training.accumulate=2", *sharded(ranks)], ranks)
    torch.manual_seed(0)
    module = SleepModule(e)
    build_trainer(e).fit(module, datamodule=TaskDataModule(e))
    return {name: whole(p.grad) for name, p in module.model.named_parameters() if p.grad is not None}


def held_bytes(ranks: Exchange = ALONE) -> int:
    """Of parameters, gradients and optimizer, between two steps."""
    module = train(experiment(sharded(ranks), ranks), None)
    [optimizer] = module.trainer.optimizers
    assert isinstance(optimizer, optimizers.MuonAdamW)
    states = chain(optimizer.muon.state.values(), optimizer.adamw.state.values())
    tensors = [x for state in states for x in state.values()]
    for p in module.model.parameters():
        tensors += [p, p.grad]
    return sum(local(x.detach()).nbytes for x in tensors)


def uneven(ranks: Exchange) -> tuple[list[int], list[Tensor]]:
    """Numbers of the matrices this rank worked on, and all results; some ranks have more rows, or none."""
    mesh = init_device_mesh("cpu", (ranks.size,))
    like = [distribute_tensor(x, mesh, [Shard(0)]) for x in UNEVEN]
    mine: list[int] = []

    def f(matrices: list[Tensor], numbers: list[int]) -> list[Tensor]:
        mine.extend(numbers)
        return [n + x * x.sum() for n, x in zip(numbers, matrices, strict=True)]

    rows = map_whole(f, [x.to_local() for x in like], like)
    return mine, [torch.cat(parts) for parts in zip(*ranks.gather([rows]), strict=True)]


def found_by_two(ranks: Exchange) -> dict[str, Any]:
    return {
        "steps": {name: first_step(name, ranks, DROPS, *sharded(ranks)) for name in STEPS},
        "steps, kept": {name: first_step(name, ranks, *sharded(ranks)) for name in KEPT},
        "scores": {name: x.as_metrics() for name, x in scores(ranks, *sharded(ranks)).items()},
        "bf16": lower_precision(ranks),
        "bytes": held_bytes(ranks),
        "uneven": uneven(ranks),
        "collectives": dict(
            collectives(ranks, 2, "sleep.n_passes=1", *sharded(ranks))
            - collectives(ranks, 1, "sleep.n_passes=1", *sharded(ranks))
        ),
    }


def fits_of_two(folder: Path, ranks: Exchange, ports: list[str]) -> list[int]:
    """Each fit makes ranks of its own, and needs a port."""
    keys = ["training.devices=2", "training.sharding=full"]
    stopped, last, exit_codes = folder / "stopped", ranks.rank == ranks.size - 1, []
    for call in (
        lambda: main(fit(folder / "two", *keys)),
        lambda: fit_with_signal(signal.SIGUSR1, fit(stopped, *keys, DROPS), here=last),
        lambda: main(["fit", "--resume", str(stopped)]),
        lambda: main(["fit", "--resume", str(folder / "from_one"), *keys]),
    ):
        os.environ["MASTER_PORT"] = ports.pop()
        exit_codes.append(int(call()))
        if ranks.rank == 0 and len(exit_codes) == 2:
            shutil.copytree(stopped, folder / "from_two")
    return exit_codes


def be_a_rank(folder: Path, size: int, ports: list[str]) -> None:
    ranks = here(size)
    if size == 2:
        found = found_by_two(ranks)
    else:
        keys = ["training.batch_size=16", *sharded(ranks)]
        found = {
            f"steps {more}": {name: first_step(name, ranks, *keys, *more) for name in STEPS} for more in ([], [DROPS])
        }
    if size == 2:
        found["exit codes"] = fits_of_two(folder, ranks, ports)
    else:
        os.environ["MASTER_PORT"] = ports.pop()
        main(["fit", "--resume", str(folder / "from_two"), f"training.devices={size}"])
    torch.save(found, folder / f"rank{ranks.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    be_a_rank(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
