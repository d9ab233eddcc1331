"""Ends that are not the planned one: signals, time limits, exceptions, a machine that dies while a checkpoint is
written."""

import os
import signal
import time
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console

from sleep_lightning.training.errors import Diverged

if TYPE_CHECKING:
    from sleep_lightning.training.module import SleepModule


class StopReason(IntEnum):
    """Why a run that can be resumed has stopped; the value is the exit code of ``fit``."""

    SIGINT = 128 + signal.SIGINT
    SIGTERM = 128 + signal.SIGTERM
    SIGUSR1 = 128 + signal.SIGUSR1
    TIME_LIMIT = os.EX_TEMPFAIL


class StopOnSignal(pl.Callback):
    """Turns the first SIGINT, SIGTERM or SIGUSR1, or a deadline, into a checkpoint and a stop at the end of the step.

    It is enough that one rank gets the signal: all stop after the same step.

    Args:
        checkpoint: where to save.
        deadline: seconds since 1970 when to stop; None: never.
        announces: whether to tell the user.

    Attributes:
        reason: why the run stops; None if it was left alone.
    """

    def __init__(self, checkpoint: Path, deadline: float | None = None, announces: bool = True) -> None:
        self.checkpoint, self.deadline, self.announces = checkpoint, deadline, announces
        self.reason: StopReason | None = None
        self._wanted: list[float] = []
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:  # type: ignore[override]
        self._wanted = pl_module.stop_wanted
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            self._previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if any(self._wanted) and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._want(StopReason(128 + number), "Ctrl-C again stops at once")

    def _want(self, reason: StopReason, more: str) -> None:
        self._wanted[list(StopReason).index(reason)] = 1.0
        if self.announces:
            Console(stderr=True).print(f"{reason.name}: saving after this step ({more})")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.deadline is not None and time.time() >= self.deadline and not any(self._wanted):
            self._want(StopReason.TIME_LIMIT, "fit --resume goes on")

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: "SleepModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        agreed = pl_module.stop_agreed.tolist()
        self.reason = next((reason for reason, votes in zip(StopReason, agreed, strict=True) if votes), None)
        if self.reason is not None:
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
    """Writes beside the target and renames: a crash or a full disk leaves the checkpoint before intact.

    Args:
        writes: False in all ranks but the first, which only read.
    """

    def __init__(self, writes: bool = True) -> None:
        self.writes = writes

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        if not self.writes:
            return
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

    def remove_checkpoint(self, path: Any) -> None:
        if self.writes:
            super().remove_checkpoint(path)
