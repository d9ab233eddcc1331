"""The learning curve of a run that is still going, for whoever watches it from outside."""

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from sleep_lightning.runs.directory import write_json
from sleep_lightning.training.module import SleepModule


class RecordHistory(pl.Callback):
    """Writes every validation so far to a JSON file, by rename: a reader never sees half of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, SleepModule)
        if trainer.state.fn == TrainerFn.FITTING and trainer.is_global_zero:
            write_json(self.path, {"history": pl_module.history})
