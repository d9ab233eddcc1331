"""A checkpoint of a training that raised."""

from pathlib import Path

import lightning.pytorch as pl
from rich.console import Console

from sleep_lightning.names import printable
from sleep_lightning.training.errors import Diverged


class SaveOnException(pl.Callback):
    """Leaves ``checkpoint`` behind when training raises; ``last.ckpt`` stays what it was, so resuming is exact.

    Lightning's OnExceptionCheckpoint is not used: beside it ``Trainer.fit`` without a checkpoint resumes from whatever
    checkpoint it finds. Diverged weights are not worth keeping, and a full disk must not hide the error itself.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Diverged):
            return
        try:
            trainer.save_checkpoint(self.checkpoint)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            said = printable(f"could not save {self.checkpoint}: {error}")
            Console(stderr=True, emoji=False).print(said, markup=False)
