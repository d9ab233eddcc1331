"""The learning curve: a row for every validation, in checkpoints and in a file for other processes to read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from sleep_lightning.runs.history import append_to_history, write_history
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor

if TYPE_CHECKING:
    from sleep_lightning.training.module import SleepModule


class History(pl.Callback):
    """Appends a row to ``pl_module.history`` after every validation of a fit: step, cost so far, scores by slice.

    The validation of the final weights is no part of Lightning's fit: who runs it calls ``add_last``.

    Args:
        path: file to which rank zero appends a line for each (``runs.history``); None: no file.

    Attributes:
        digests: by step, hash of the training data up to there.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.digests: dict[str, str] = {}
        self._on_disk: int | None = None  # rows of the file; None: what it holds is of another process

    def on_validation_end(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:  # type: ignore[override]
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._add(trainer, pl_module)

    def add_last(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:
        """Append the validation of the final weights, unless the last step's is there already.

        No checkpoint to resume from holds it: a run that is trained for longer goes on without, as if never stopped.
        """
        if not pl_module.history or pl_module.history[-1]["step"] != trainer.global_step:
            self._add(trainer, pl_module)

    def _add(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:
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
            | {"answers": scores["all"].answers}
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
            self._on_disk = None  # what came after the checkpoint goes
            self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:
        if self.path is None or not trainer.is_global_zero:
            return
        rows = pl_module.history
        if self._on_disk and self._on_disk == len(rows) - 1:  # without any there is no file
            append_to_history(self.path, rows[-1])
        else:
            write_history(self.path, rows)
        self._on_disk = len(rows)
