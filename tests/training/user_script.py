"""A script as a user writes it, with everything of Lightning's that is the user's own; run by ``test_any_trainer``.

``python user_script.py FOLDER DEVICES STRATEGY [key=value ...]``; what it finds goes to ``FOLDER/found<rank>.json``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sleep_lightning import SleepModule, load_experiment

ROWS, WINDOW = 16, 6


class FirstBits(Dataset[dict[str, Tensor]]):
    """Batches of two windows of random bits, evicted before the third window asks for the first bit of each."""

    def __init__(self, batches: int, seed: int) -> None:
        self.batches, self.seed = batches, seed

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        if i >= self.batches:
            raise IndexError(i)
        generator = torch.Generator().manual_seed(1000 * self.seed + i)
        context = torch.randint(2, (ROWS, 2 * WINDOW), generator=generator)
        query = torch.full((ROWS, 2), 2)
        labels = torch.full((ROWS, 2 * WINDOW + 2), -100)
        labels[:, -2:] = context[:, ::WINDOW]
        return {"tokens": torch.cat((context, query), 1), "labels": labels}


class OwnData(L.LightningDataModule):
    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(FirstBits(6, seed=0), batch_size=None, shuffle=False)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(FirstBits(2, seed=1), batch_size=None)

    test_dataloader = predict_dataloader = val_dataloader


class Recorder(L.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.writes = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *args: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        self.writes += trainer.is_global_zero


def main(folder: Path, devices: int, strategy: str, *overrides: str) -> None:
    L.seed_everything(0)
    keys = ["task.ring_size=6", "task.n_strings=2", "task.steps=[1]", "sleep.window_size=6", "model.d_model=16"]
    module = SleepModule(load_experiment(None, [*keys, "sleep.n_passes=2", "training.log_every=1", *overrides]))
    recorder, best = Recorder(), ModelCheckpoint(folder / "best", monitor="val/loss", filename="best")
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        max_epochs=2,
        log_every_n_steps=1,
        logger=[TensorBoardLogger(folder, name="tensorboard"), CSVLogger(folder, name="csv")],
        callbacks=[recorder, best, LearningRateMonitor(), EarlyStopping("train/loss", patience=50, strict=True)],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data = OwnData()
    trainer.fit(module, data)
    [tested] = trainer.test(module, data, verbose=False)
    answers = trainer.predict(module, data)
    assert answers is not None
    again = SleepModule.load_from_checkpoint(best.best_model_path, weights_only=True)
    found = {
        "losses": recorder.losses,
        "writes": recorder.writes,
        "test": tested,
        "answers": torch.cat([x for x in answers if isinstance(x, Tensor)]).tolist(),
        "weights": float(sum(p.double().abs().sum() for p in module.parameters())),
        "best": float(best.best_model_score or torch.nan),
        "loaded": int(again.hparams["experiment"]["sleep"]["n_passes"]),
        "world_size": trainer.world_size,
    }
    (folder / f"found{trainer.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
