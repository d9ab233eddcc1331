"""Ends that are not the planned one: signals, exceptions, a machine that dies while a checkpoint is written."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console

from sleep_lightning.training.failure import Diverged


class StopOnSignal(pl.Callback):
    """Turns the first SIGINT or SIGTERM into a checkpoint and a stop at the end of the step.

    Args:
        checkpoint: where to save.

    Attributes:
        received: the signal, or None if the run was left alone.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number in self.SIGNALS:
            self._previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        Console(stderr=True).print(f"{self.received.name}: saving after this step (Ctrl-C again stops at once)")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.received is not None:
            trainer.save_checkpoint(self.checkpoint)
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())


class SaveOnException(pl.Callback):
    """Leaves ``checkpoint`` behind when training raises; ``last.ckpt`` stays what it was, so resuming is exact.

    Diverged weights are not worth keeping.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Diverged):
            return
        try:
            trainer.save_checkpoint(self.checkpoint)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            Console(stderr=True).print(f"could not save {self.checkpoint}: {error}")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a crash or a full disk leaves the checkpoint before intact."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
