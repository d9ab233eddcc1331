"""Ranks that share a pretrained model from its first byte on; run as a module, this is one of them."""

import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.distributed.sharded_muon import local
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.resource_usage import forget_peak, peak_resident_bytes, resident_bytes
from sleep_lightning.training.trainer import build_trainer, quiet_lightning
from tests.pretrained.test_fit import SHORT

KINDS = ("llama", "llama tied", "qwen3_5", "lora")
"""Folders of snapshots; behind them one that is large."""
LARGE = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 6, "head_dim": 64}
STAGES = "training.stages=[{steps: 1, train: memory}]"


def experiment(folder: Path, kind: str, ranks: int, *more: str) -> Experiment:
    keys = ["training.max_steps=2", "training.val_every=2", "training.muon_lr=1e-3", "training.adamw_lr=1e-4"]
    keys += ["training.clip_norm=0", STAGES]
    keys += [f"model.pretrained={folder / kind}", "model.insert={every: 2}", f"training.devices={ranks}"]
    keys += ["model.lora={r: 2}", f"model.pretrained={folder / 'llama'}"] if kind == "lora" else []
    keys += ["training.sharding=full", "training.reshard_after_forward=true"] if ranks > 1 else []
    return load_experiment(None, [*SHORT, *keys, *more])


def whole(x: Tensor) -> Tensor:
    return (x.full_tensor() if isinstance(x, DTensor) else x).detach().clone()


class Look(pl.Callback):
    """Weights before the first step and behind each, and the peak of this process until they were all in place."""

    def __init__(self) -> None:
        forget_peak()
        self.held, self.weights, self.peak, self.shares = resident_bytes(), list[dict[str, Tensor]](), 0, 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.peak = peak_resident_bytes() - self.held
        self.shares = sum(local(p.detach()).nbytes for p in pl_module.parameters())
        self._keep(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *more: Any) -> None:
        self._keep(pl_module)

    def _keep(self, module: pl.LightningModule) -> None:
        assert isinstance(module, SleepModule) and isinstance(module.model, nn.Module)
        self.weights.append({name: whole(p) for name, p in module.model.named_parameters()})


def begun(e: Experiment) -> Look:
    quiet_lightning()
    look = Look()
    torch.manual_seed(e.training.seed)
    module = SleepModule(e)
    build_trainer(e, callbacks=[look]).fit(module, datamodule=TaskDataModule(e))
    return look


def large(folder: Path, ranks: int) -> dict[str, int]:
    """Bytes of a large model: what loading took at most, and the shares."""
    e = experiment(folder, "large", ranks)
    quiet_lightning()
    module = SleepModule(load_experiment(None, [*SHORT, f"training.devices={ranks}"]))  # libraries that load late
    trainer = build_trainer(module.experiment)
    trainer.fit(module, datamodule=TaskDataModule(module.experiment))
    look = Look()
    look._keep = lambda module: None  # type: ignore[method-assign, assignment]
    torch.manual_seed(0)
    module = SleepModule(e)
    build_trainer(e, callbacks=[look]).fit(module, datamodule=TaskDataModule(e))
    return {"peak": look.peak, "shares": look.shares}


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    import os

    found: dict[str, Any] = {"large": large(place, 2)}
    found |= {kind: begun(experiment(place, kind, 2)).weights for kind in KINDS}
    torch.save(found, place / f"rank{os.environ['RANK']}.pt")
