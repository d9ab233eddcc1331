"""A checkpoint of a training that raised."""

from pathlib import Path

import lightning.pytorch as pl
from rich.console import Console

from sleep_lightning.names import printable
from sleep_lightning.runs.infrastructure import Cause, cause_of
from sleep_lightning.training.errors import Diverged


class SaveOnException(pl.Callback):
    """Leaves ``checkpoint`` behind when training raises; ``last.ckpt`` stays what it was, so resuming is exact.

    Lightning's OnExceptionCheckpoint is not used: beside it ``Trainer.fit`` without a checkpoint resumes from whatever
    checkpoint it finds. Diverged weights are not worth keeping; a full disk has no place for them, and must not hide
    the error itself.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Diverged) or cause_of(exception) is Cause.DISK:
            return
        try:
            trainer.save_checkpoint(self.checkpoint)
        except (OSError, RuntimeError) as error:  # the latter from torch.save
            said = printable(f"could not save {self.checkpoint}: {error}")
            Console(stderr=True, emoji=False).print(said, markup=False)
