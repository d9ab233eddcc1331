"""A run's last step in a file, for a sweep or a comparison to show between two validations."""

import time
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from sleep_lightning.runs.progress import Latest
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor

if TYPE_CHECKING:
    from sleep_lightning.training.module import SleepModule

EVERY = 2.0
"""Seconds between two writings at least: each waits for the device and the disk."""


class LatestStep(pl.Callback):
    """Writes ``runs.progress.Latest`` while a run trains, and removes it at the end.

    Args:
        path: of the file; None: no file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._written = float("-inf")

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: "SleepModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.path is None or not trainer.is_global_zero or time.monotonic() - self._written < EVERY:
            return
        monitor = ResourceMonitor.of(trainer)
        Latest(
            step=trainer.global_step,
            loss=float(trainer.callback_metrics.get("train/loss", nan)),
            train_flops=monitor.train_flops,
            tokens_per_s=monitor.measured().get("tokens_per_s", 0.0),
        ).write(self.path)
        self._written = time.monotonic()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.path is not None and trainer.is_global_zero:
            self.path.unlink(missing_ok=True)
