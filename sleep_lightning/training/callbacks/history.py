"""The learning curve: a row for every validation, in checkpoints and in a file for other processes to read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from sleep_lightning.runs.files import write_json
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor

if TYPE_CHECKING:
    from sleep_lightning.training.module import SleepModule


class History(pl.Callback):
    """Appends a row to ``pl_module.history`` after every validation of a fit: step, cost so far, scores by slice.

    Args:
        path: JSON file that rank zero rewrites by rename, so that a reader never sees half of it; None: no file.

    Attributes:
        digests: by step, hash of the training data up to there.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.digests: dict[str, str] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:  # type: ignore[override]
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        monitor = ResourceMonitor.of(trainer)
        if (digest := getattr(trainer.datamodule, "digest", None)) is not None:  # type: ignore[attr-defined]
            self.digests[str(trainer.global_step)] = digest
        scores = pl_module.scores
        by_slice = {f"{name}/exact_match": one.exact_match for name, one in scores.items() if name != "all"}
        pl_module.history.append(
            {"step": trainer.global_step}
            | monitor.cost_so_far()
            | monitor.measured_so_far()
            | scores["all"].as_metrics()
            | by_slice
        )
        self._write(trainer, pl_module)

    def on_save_checkpoint(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: "SleepModule", checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["history"], checkpoint["digests"] = pl_module.history, self.digests

    def on_load_checkpoint(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: "SleepModule", checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            pl_module.history, self.digests = checkpoint.get("history", []), checkpoint.get("digests", {})
            self._write(trainer, pl_module)  # without what came after the checkpoint

    def _write(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:
        if self.path is not None and trainer.is_global_zero:
            write_json(self.path, {"history": pl_module.history})
