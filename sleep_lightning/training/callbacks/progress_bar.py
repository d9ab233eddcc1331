"""What a person sees while a run trains: steps, tokens/s, ETA, FLOPs so far, the last exact match."""

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sleep_lightning.formatting import with_unit
from sleep_lightning.training.module import SleepModule


class RichProgress(pl.Callback):
    """A live bar on a terminal; on a pipe or in a log file, a line per validation."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} tokens/s"),
            TextColumn("{task.fields[flops]}FLOP"),
            TextColumn("exact match {task.fields[exact]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self.console,
            refresh_per_second=2,
            disable=not self.console.is_terminal,
        )
        self.started, self.first_step = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started, self.first_step = time.monotonic(), trainer.global_step
        total = trainer.max_steps
        self.bar = self.progress.add_task(
            "train", total=total, completed=trainer.global_step, rate="-", flops="0", exact="-"
        )
        self.progress.start()

    def rate(self, module: SleepModule) -> float:
        """Training tokens per second since this process began to train (validations included)."""
        return (module.steps - self.first_step) * module.step_tokens / max(time.monotonic() - self.started, 1e-9)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SleepModule)
        self.progress.update(
            self.bar,
            completed=pl_module.steps,
            rate=with_unit(self.rate(pl_module)),
            flops=with_unit(pl_module.train_flops),
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, SleepModule)
        if trainer.state.fn != TrainerFn.FITTING:
            return
        score = pl_module.scores["all"]
        self.progress.update(self.bar, exact=f"{score.exact_match:.3f}")
        self.console.print(
            f"step {pl_module.steps}: loss {score.loss:.4f}, exact match {score.exact_match:.3f} (majority "
            f"{score.baselines.majority_exact_match:.3f}, uniform {score.baselines.uniform_exact_match:.3f}), "
            f"token accuracy {score.token_accuracy:.3f}, {with_unit(self.rate(pl_module))} tokens/s, "
            f"{with_unit(pl_module.train_flops)}FLOP",
            highlight=False,
            soft_wrap=True,
        )

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.progress.stop()  # there is no teardown then

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.progress.stop()
