"""What several ranks are compared on with one process; run as a module, this is one of the ranks.

Importing costs seconds, so each rank is one process that does everything, in order.
"""

import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sleep_lightning.__main__ import main
from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.training.callbacks.preemption import Preemption
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.distributed.exchange import Exchange, all_reduce_gradients
from sleep_lightning.training.distributed.place import Place
from sleep_lightning.training.metrics import Score
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.trainer import build_trainer, quiet_lightning
from tests.cli.cli import fit_arguments

RANKS, ALONE = 2, Exchange()
STOPPED_IN = 7
"""The step in which some fits get a signal."""
DEPO = ["task.name=depo", "task.n_nodes=6", "task.min_nodes=3", "task.max_hops=3", "task.name_lengths=[1,2]"]
DEPO += ["task.n_queries=4", "sleep.window_size=6", "sleep.n_passes=2", "model.d_model=16", "model.d_ff=24"]
DEPO += ["training.max_steps=1", "training.batch_size=8", "training.val_batch_size=7", "training.val_batches=3"]
DEPO += ["training.clip_norm=0", "training.accelerator=cpu"]
"""Cycles of different length: two rows seldom have the same number of labels."""
GRADIENTS: dict[str, tuple[list[str], int | None]] = {
    "full": ([], None),
    "k=1": ([], 1),
    "k=2, accumulated": (["training.accumulate=2"], 2),
    "accumulated": (["training.accumulate=4"], None),
    "MLPs again": (["training.checkpointing=mlp"], None),
    "window checkpoints": (["training.checkpointing=window"], None),
    "pass checkpoints": (["training.checkpointing=pass", "training.accumulate=2"], None),
    "grad_passes": (["sleep.n_passes=3", "sleep.grad_passes=1"], None),
    "layer by layer": (["sleep.n_passes=3", "sleep.pass_input=embed"], None),
    "stage": (["training.stages=[{steps: 1, train: memory}]"], None),
}
"""Overrides, and after how many windows memory is detached: k = 1 trains no sleep, so a configuration refuses it."""


def experiment(overrides: list[str], ranks: Exchange) -> Experiment:
    return load_experiment(None, [*DEPO, *overrides, f"training.devices={ranks.size}"])


class Truncate(pl.Callback):
    """Detaches memory after so many windows: once the cost is known, as long as the experiment is one (GRADIENTS)."""

    def __init__(self, windows: int | None) -> None:
        self.windows = windows

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, SleepModule)
        count = ResourceMonitor.of(trainer)._step_flops
        assert count is not None and count(pl_module.experiment.sleep) > 0
        pl_module.experiment.training.tbptt_windows = self.windows


def train(e: Experiment, tbptt_windows: int | None) -> SleepModule:
    """Train under the real trainer, in float64; gradients of the last step are left."""
    quiet_lightning()
    torch.manual_seed(0)
    module = SleepModule(e)
    module.model.double()
    build_trainer(e, callbacks=[ResourceMonitor(), Truncate(tbptt_windows)]).fit(module, datamodule=TaskDataModule(e))
    return module


def gradients(name: str, ranks: Exchange = ALONE) -> dict[str, Tensor | None]:
    overrides, k = GRADIENTS[name]
    module = train(experiment(overrides, ranks), k)
    return {name: None if p.grad is None else p.grad for name, p in module.model.named_parameters()}


def scores(ranks: Exchange = ALONE, *overrides: str) -> dict[str, Score]:
    """Of three validation batches of seven rows."""
    quiet_lightning()
    e = experiment([*overrides], ranks)
    torch.manual_seed(0)
    module = SleepModule(e)
    module.model.double()
    build_trainer(e).validate(module, datamodule=TaskDataModule(e), verbose=False)
    return module.scores


def collectives(ranks: Exchange, steps: int, *more: str) -> Counter[str]:
    """Everything the ranks exchange in steps of two micro-batches, each with several backward calls."""
    e = experiment([f"training.max_steps={steps}", "training.accumulate=2", "training.val_every=100", *more], ranks)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        train(e, 1)
    return Counter(event.name for event in profiler.events() if event.name.startswith("c10d::"))


def odd_gradients(ranks: Exchange) -> list[Tensor | None]:
    """Of four parameters: one with a gradient everywhere, one on rank 1 only, one nowhere, one that does not learn."""
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(4)]
    parameters[0].grad = torch.full((2,), 1.0 + ranks.rank)
    if ranks.rank == 1:
        parameters[1].grad = torch.full((2,), 5.0)
    parameters[3].requires_grad_(False)
    extra = all_reduce_gradients(parameters, torch.tensor([10.0 * ranks.rank, 1.0]))
    return [*(p.grad for p in parameters), extra]


def fit(folder: Path, *overrides: str) -> list[str]:
    """Arguments of a small fit whose learning rates do not blow rounding up."""
    calm = ["training.muon_lr=1e-4", "training.adamw_lr=1e-4", "training.accumulate=2"]
    calm += ["training.accelerator=cpu", "tracking.enabled=false"]
    return fit_arguments(str(folder), 12, *calm, *overrides)


def fit_with_signal(number: signal.Signals, arguments: list[str], here: bool = True) -> int:
    """``fit`` that gets a signal at the beginning of one step, if it is to be here."""
    undisturbed: Callable[..., None] = Preemption.on_train_batch_start

    def disturbed(self: Preemption, trainer: Any, *more: Any) -> None:
        if here and trainer.global_step == STOPPED_IN - 1:
            os.kill(os.getpid(), number)
        undisturbed(self, trainer, *more)

    Preemption.on_train_batch_start = disturbed  # type: ignore[method-assign]
    try:
        return main(arguments)
    finally:
        Preemption.on_train_batch_start = undisturbed  # type: ignore[method-assign]


def here(size: int) -> Exchange:
    """This process among so many ranks."""
    return Exchange(Place.of(experiment([], Exchange(size=size)).training).rank, size)


def be_a_rank(folder: Path, ports: list[str]) -> None:
    """All of it, as the rank that the environment says; each fit makes ranks of its own, and needs a port."""
    devices = f"training.devices={RANKS}"
    ranks = here(RANKS)
    found: dict[str, Any] = {}
    found["gradients"] = {name: gradients(name, ranks) for name in GRADIENTS}
    found["scores"] = {name: x.as_metrics() | {"answers": x.answers} for name, x in scores(ranks).items()}
    found["collectives"] = dict(collectives(ranks, 4) - collectives(ranks, 1))
    found["odd"] = odd_gradients(ranks)
    stopped, last = str(folder / "stopped"), ranks.rank == RANKS - 1
    exit_codes = []
    for call in (
        lambda: main(fit(folder / "two", devices)),
        lambda: fit_with_signal(signal.SIGUSR1, fit(folder / "stopped", devices), here=last),
        lambda: main(["fit", "--resume", stopped]),
        lambda: main(["fit", "--resume", str(folder / "from_one"), devices]),
    ):
        os.environ["MASTER_PORT"] = ports.pop()
        exit_codes.append(int(call()))
        if ranks.rank == 0 and len(exit_codes) == 2:
            shutil.copytree(stopped, folder / "from_two")
            found["stopped at"] = torch.load(f"{stopped}/checkpoints/last.ckpt", weights_only=True)["global_step"]
    found["exit codes"] = exit_codes
    torch.save(found, folder / f"rank{ranks.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    be_a_rank(Path(sys.argv[1]), sys.argv[2:])
