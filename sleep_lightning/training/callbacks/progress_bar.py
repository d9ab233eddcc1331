"""What a person sees while a run trains: steps, tokens/s, ETA, FLOPs so far, the last exact match."""

import time
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn

from sleep_lightning.formatting import in_flop, with_unit
from sleep_lightning.lines import print_line
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor

if TYPE_CHECKING:
    from sleep_lightning.training.module import SleepModule


class SleepProgressBar(RichProgressBar):
    """Lightning's bar, over ``max_steps``, on a terminal; and a line per validation, also in a log file.

    Args:
        console: where it goes; None: stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        super().__init__(refresh_rate=2, console_kwargs={"file": self.console.file})
        self._started, self._first_step = 0.0, 0
        if not self.console.is_terminal:
            self.disable()

    def enable(self) -> None:
        """Only a terminal can redraw a bar."""
        if self.console.is_terminal:
            super().enable()

    def configure_columns(self, trainer: pl.Trainer) -> list[ProgressColumn]:
        return [
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        ]

    @property
    def total_train_batches(self) -> int | float:
        """Steps of the whole run, where it is bounded by steps."""
        steps = self.trainer.max_steps
        return steps if steps > 0 else super().total_train_batches

    def _get_train_description(self, current_epoch: int) -> str:
        return "train"

    def get_metrics(self, trainer: pl.Trainer, pl_module: "SleepModule") -> dict[str, Any]:  # type: ignore[override]
        shown = {
            "tokens/s": with_unit(self.rate(trainer, pl_module)),
            "trained": in_flop(ResourceMonitor.of(trainer).train_flops),
        }
        if (loss := trainer.callback_metrics.get("train/loss")) is not None:
            shown["loss"] = f"{float(loss):.3f}"
        if pl_module.scores:
            shown["exact match"] = str(pl_module.scores["all"].accuracy)
        return shown

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._started, self._first_step = time.monotonic(), trainer.global_step

    def rate(self, trainer: pl.Trainer, pl_module: "SleepModule") -> float:
        """Training tokens per second since this process began to train (validations included)."""
        steps = trainer.global_step - self._first_step
        return steps * pl_module.step_tokens / max(time.monotonic() - self._started, 1e-9)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.is_enabled:  # reading the loss waits for the device
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:  # type: ignore[override]
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and trainer.is_global_zero:
            self.print_scores(trainer, pl_module)

    def print_scores(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:
        """The line of the last validation."""
        score = pl_module.scores["all"]
        console = self.console if self.progress is None else self.progress.console
        print_line(
            console,
            f"step {trainer.global_step}: loss {score.loss:.4f}, exact match {score.accuracy}, "
            f"token accuracy {score.token_accuracy:.3f}, {with_unit(self.rate(trainer, pl_module))} tokens/s, "
            f"{in_flop(ResourceMonitor.of(trainer).train_flops)}",
        )
