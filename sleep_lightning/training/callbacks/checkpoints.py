"""The two checkpoints of a run: ``last.ckpt``, from which it resumes, and ``best.ckpt``."""

import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from sleep_lightning.runs.checkpoint import is_readable, load_checkpoint
from sleep_lightning.runs.directory import SAVED
from sleep_lightning.runs.files import write_text
from sleep_lightning.training.callbacks.preemption import Preemption


class StepCheckpoint(Checkpoint):
    """Saves whole steps: every ``every`` of them and the last one, and the one at which ``Preemption`` stops.

    The last one is at ``max_steps``, or where a callback stops training.

    A step that validates is saved after its validation: what resumes from it has the validation in its history, and
    knows the best score. Lightning's ModelCheckpoint saves before. It must stand behind other checkpoint callbacks.

    Args:
        path: where to save; None: ``last.ckpt`` in the directory of the trainer's checkpoints.
        every: steps; None: only the step at which ``Preemption`` stops.
    """

    def __init__(self, path: Path | None = None, every: int | None = None) -> None:
        self.path, self.every = path, every
        self._due, self._saved = False, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, stop = trainer.global_step, any(one.reason for one in _preemptions(trainer))
        self._due = stop or (self.every is not None and (step % self.every == 0 or step == trainer.max_steps))
        loop = trainer.fit_loop
        if self._due and not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):  # type: ignore[arg-type]
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stopped = self.every is not None and trainer.should_stop  # by early stopping, for example
        if (self._due or stopped) and trainer.state.fn == TrainerFn.FITTING:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.every is not None and trainer.global_step > self._saved:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        self._due, self._saved = False, trainer.global_step
        directory = getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir
        path = self.path or Path(directory) / "last.ckpt"
        trainer.save_checkpoint(path)
        if self.every is not None and trainer.is_global_zero and not (path.parent / SAVED).exists():
            write_text(path.parent / SAVED, "")


def _preemptions(trainer: pl.Trainer) -> list[Preemption]:
    return [one for one in trainer.callbacks if isinstance(one, Preemption)]  # type: ignore[attr-defined]


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint of the highest validation exact match, of equal ones that of the lowest loss (text that is
    continued is hardly ever matched as a whole); its saved state survives a move of the directory.

    Lightning's forgets the best score where the directory has another name. Checkpoints that it saved are read too.
    """

    def __init__(self, directory: Path | None) -> None:
        super().__init__(
            directory, filename="best", monitor="val/exact_match", mode="max", enable_version_counter=False
        )
        self._best_loss: float | None = None

    @property
    def state_key(self) -> str:
        return "ModelCheckpoint" + super().state_key.removeprefix(type(self).__qualname__)

    def state_dict(self) -> dict[str, Any]:
        return _replace_paths(super().state_dict(), "") | {"best_loss": self._best_loss}

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Lightning's, and on equal scores by loss: both are those of all ranks."""
        loss, before = trainer.callback_metrics.get("val/loss"), self._best_loss
        better = bool(super().check_monitor_top_k(trainer, current))
        if not better and current is not None and loss is not None and before is not None:
            better = bool(current == self.best_model_score) and bool(loss < before)
        if better:
            self._best_loss = None if loss is None else float(loss)
        return better

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._take(state_dict)
        own, known = self._state_in_best(), self.best_model_score
        if own and (known is None or own["best_model_score"] > known):  # saved after the checkpoint resumed from
            self._take(own)
        if self.best_model_score is not None and not own and not is_readable(file := self._file, ()):
            self.best_model_score, self.kth_value, self._best_loss = None, torch.tensor(-torch.inf), None
            self.best_k_models, self.best_model_path, self.kth_best_model_path = {}, "", ""
            self._say(
                f"{file} is missing or damaged, and with it the best checkpoint so far; the next one is kept there"
            )

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Recover the best score from ``best.ckpt`` if the checkpoint has lost it. Raises LookupError if that fails."""
        if checkpoint["callbacks"].get(self.state_key) or not checkpoint.get("history"):
            return
        if not (own := self._state_in_best()):
            raise LookupError("it lacks the state of ModelCheckpoint, so the best score, which best.ckpt lacks as well")
        self._take(own)
        score = f"{float(own['best_model_score']):.3f}"
        self._say(f"the checkpoint lacks the best score: it is that of best.ckpt, {score}")

    def _take(self, state: dict[str, Any]) -> None:
        super().load_state_dict(_replace_paths(state, str(self.dirpath)))
        self._best_loss = state.get("best_loss")  # earlier versions had none: of equal scores they keep the first
        known, loss = self.best_k_models, self._best_loss
        right = all(isinstance(score, Tensor) for score in known.values()) and isinstance(loss, float | None)
        if not right or (known and self.kth_best_model_path not in known):
            raise LookupError("the scores of the best checkpoint")

    @property
    def _file(self) -> Path:
        return Path(str(self.dirpath)) / "best.ckpt"

    @rank_zero_only
    def _say(self, text: str) -> None:
        print(text, file=sys.stderr)

    def _state_in_best(self) -> dict[str, Any]:
        """The state that ``best.ckpt`` holds; empty where it has none."""
        try:
            own: dict[str, Any] = (
                load_checkpoint(self._file)["callbacks"][self.state_key] if self._file.exists() else {}
            )
        except (ValueError, LookupError):
            return {}
        return own if own.get("best_model_score") is not None else {}


def keep_if_best(trainer: pl.Trainer) -> None:
    """Save the weights if a validation that followed the training is the best: Lightning does so in training only.

    All ranks must call it.
    """
    for one in trainer.checkpoint_callbacks:
        if isinstance(one, BestCheckpoint):
            one._save_monitor_checkpoint(trainer, one._monitor_candidates(trainer))


def _replace_paths(state: dict[str, Any], directory: str) -> dict[str, Any]:
    """The callback's state with its files in another directory; "" for names alone."""

    def there(path: str) -> str:
        return str(Path(directory) / Path(path).name) if path else path

    paths = {key: there(state[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
    best = {there(path): score for path, score in state["best_k_models"].items()}
    return {**state, **paths, "best_k_models": best, "dirpath": directory}
