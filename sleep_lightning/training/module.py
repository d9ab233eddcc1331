"""The LightningModule: one training step is one optimizer step over one batch, window by window."""

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.config.stages import sleep_of, stage_of
from sleep_lightning.model import HybridLM, ModelConfig, WindowModel
from sleep_lightning.pretrained import load_weights
from sleep_lightning.runs.checkpoint import MODULE, checkpoint_file, experiment_of, load_checkpoint
from sleep_lightning.sleep import IGNORE, plan_windows
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training.any_trainer import check_length, default_callbacks, refuse_unsupported
from sleep_lightning.training.batches import as_batch
from sleep_lightning.training.distributed.sharded_muon import share
from sleep_lightning.training.errors import check_loss, check_weights
from sleep_lightning.training.frozen_prelude import FrozenPrelude
from sleep_lightning.training.metrics import Answers, Score, score
from sleep_lightning.training.optimizer import build_optimizer, rate_name
from sleep_lightning.training.prediction import answer, predict
from sleep_lightning.training.schedule import build_schedule
from sleep_lightning.training.step_gradients import StepGradients

_RESTORING = ContextVar("restoring", default=False)
"""Whether a module's experiment comes from a checkpoint, and so was written by an earlier version maybe."""
_LOADING = ContextVar("loading", default=False)
"""Whether a module is about to be given whole weights."""


class SleepModule(pl.LightningModule):
    """Trains a window model under Algorithm 1 with truncated or full BPTT, in any ``lightning.Trainer``.

    With ``model.pretrained`` training begins from its weights, unless the module was loaded from a checkpoint.

    Batches are ``TaskBatch``es, or ``(tokens, labels)`` as a tuple or a mapping, int64 ``[B, T]``: labels are aligned
    to the logits (``labels[:, t]`` is the target of position t), -100 where there is no loss. With several devices
    (``strategy="sleep_ddp"`` or ``"sleep_fsdp"``) every rank is given the whole batch and takes its share of the rows.

    Logged: ``train/{loss,grad_norm}``, the learning rate by its optimizer (``train/muon_lr``, see ``rate_name``),
    ``val/...`` and ``test/...`` (exact match, token accuracy, loss and baselines, over all answers and by slice).

    Args:
        experiment: the experiment, or its plain form (``Experiment.to_dict``, or a dict of one's own: keys that it
            lacks have today's defaults). The plain form is the module's only hyperparameter and travels in every
            checkpoint, from which ``load_from_checkpoint`` restores it as it was meant then.

    Attributes:
        model: the window model.
        scores: of the last validation or test, by slice.
        step_tokens: tokens of the last training batch; before it, those that the experiment expects.
        history: a dict for every validation so far; filled by the ``History`` callback.
        gradients: of a step, over micro-batches, windows and ranks.
    """

    def __init__(self, experiment: Experiment | Mapping[str, Any]) -> None:
        super().__init__()
        self.automatic_optimization = False  # one step has many backward calls: one a segment of truncated BPTT
        if not isinstance(experiment, Experiment):
            experiment = load_experiment(dict(experiment), saved=_RESTORING.get())
        self.experiment = experiment.pinned()
        self.save_hyperparameters({"experiment": self.experiment.to_dict()})
        self.task = self.experiment.task.build()
        with torch.device("meta") if self._begins_empty() else nullcontext():
            self.model = self.experiment.build_model(self.task)
        if self.experiment.training.compile:
            cast(HybridLM, self.model).compile_passes()  # the experiment has checked that it has the method
        self._prelude = FrozenPrelude.of(self.model, self.experiment)
        self.gradients = StepGradients(self.model, self.experiment.training, self._prelude)
        self.step_tokens = self.experiment.training.batch_size * self.task.sequence_length
        self.scores: dict[str, Score] = {}
        self.history: list[dict[str, float]] = []
        self._answers: list[Answers] = []
        self._restored = False

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Lightning's, of a checkpoint that has been checked.

        Args:
            checkpoint_path: file or run directory; what is no local path is read as it is.
            args, kwargs: as for Lightning's; ``experiment`` replaces the saved one.

        Raises:
            ValueError: it is damaged, was not written by this package, or its weights do not fit.
        """
        if isinstance(checkpoint_path, str | os.PathLike) and "://" not in str(checkpoint_path):
            checkpoint_path = checkpoint_file(Path(checkpoint_path))
            content = load_checkpoint(checkpoint_path, MODULE, weights_only=kwargs.get("weights_only") is not False)
            if "experiment" not in kwargs:
                kwargs["experiment"] = experiment_of(content, (), checkpoint_path)
        token, loading = _RESTORING.set("experiment" not in kwargs), _LOADING.set(True)
        try:
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        except RuntimeError as error:
            if "loading state_dict" not in str(error):
                raise
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{checkpoint_path} does not fit {cls.__name__} and its experiment: {reason}; give the class and the "
                f"experiment that saved it, or strict=False"
            ) from error
        finally:
            _RESTORING.reset(token)
            _LOADING.reset(loading)

    @property
    def reader(self) -> WindowModel:
        """What reads windows: the model, or what stands for its embedding and a frozen prelude."""
        return self._prelude or self.model

    @property
    def steps(self) -> int:
        """Optimizer steps done."""
        return self.trainer.global_step

    def forward(self, batch: TaskBatch | Sequence[Tensor] | Mapping[str, Tensor]) -> Tensor:
        """Logits ``[B, T, vocab]`` of one teacher-forced pass over the windows; zeros in windows that sleep."""
        return predict(self.reader, as_batch(batch), self.experiment.sleep)

    def configure_callbacks(self) -> list[pl.Callback]:
        """Refuses what this module cannot train under, and adds the callbacks that it needs and the trainer lacks."""
        refuse_unsupported(self.trainer, self.experiment)
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_length(self.trainer, self.experiment)
        return default_callbacks(self.trainer)

    def setup(self, stage: str) -> None:
        # scores are gathered from all ranks before they are logged
        warnings.filterwarnings("ignore", message=r".*self\.log\('(val|test)/.*sync_dist=True.*")
        empty = any(p.is_meta for p in self.model.parameters())
        self.gradients.connect(self.trainer)
        if empty and self.gradients.shards is None:
            cast(HybridLM, self.model).to_empty(device=self.device).restore_buffers()
        if (empty or stage == TrainerFn.FITTING) and not self._restored and self.trainer.ckpt_path is None:
            self._load_pretrained()

    def _begins_empty(self) -> bool:
        """Whether no rank shall hold a whole model: then weights are read when it is sharded."""
        e = self.experiment
        pretrained = isinstance(e.model, ModelConfig) and e.model.pretrained is not None
        return pretrained and e.training.sharding == "full" and not _LOADING.get()

    def _load_pretrained(self) -> None:
        config = self.experiment.model
        if isinstance(config, ModelConfig) and config.pretrained is not None:
            load_weights(cast(HybridLM, self.model), config.pretrained, share)
        self._restored = True

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.experiment.training)
        schedule = build_schedule(optimizer, self.experiment.training)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if self.trainer.should_stop else None  # a callback has stopped training between two steps

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t, batch = self.experiment.training, as_batch(batch)
        self.step_tokens = batch.tokens.numel()
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad(set_to_none=not self.gradients.keeps_gradients)  # type: ignore[union-attr]
        sleep = sleep_of(self.experiment, self.steps)
        if t.stages:
            self.experiment.let_learn(self.model, [stage_of(self.experiment, self.steps).train])
        loss, norm = self.gradients(batch, sleep, self.manual_backward)
        learning_rate = optimizer.param_groups[0]["lr"]  # type: ignore[union-attr]
        optimizer.step()  # type: ignore[union-attr]
        schedule.step()  # type: ignore[union-attr]
        if (consumed := getattr(getattr(self.trainer, "datamodule", None), "consumed", None)) is not None:
            consumed(batch)  # here: checkpoints are saved right after
        if self.steps % t.log_every == 0:
            check_loss("training", float(loss), self.steps, t)
        rate = f"train/{rate_name(optimizer)}"
        metrics = {"train/loss": loss, "train/grad_norm": norm, rate: _exact(learning_rate)}
        self.log_dict(metrics | {"step": _exact(self.steps)})
        return loss

    def on_validation_epoch_start(self) -> None:
        self._answers = []  # one before may have been interrupted

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if self.gradients.shards is not None:
            self.gradients.shards.gather()
        sleep = self.experiment.sleep
        batch = as_batch(batch).aligned(sleep, self.model.neutral_pad)
        windows = plan_windows(batch.labels, sleep.window_size, self.model.padding(batch.tokens))
        self._answers.append(answer(self.reader, self.gradients.exchange.share(batch), sleep, windows=windows))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._score("val")
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_loss("validation", self.scores["all"].loss, self.steps, self.experiment.training)

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _score(self, split: str) -> None:
        self.scores, self._answers = score(self.gradients.exchange.gather(self._answers)), []
        if self.gradients.shards is not None:
            self.gradients.shards.scatter()
        metrics = {
            f"{split}/{key}" if name == "all" else f"{split}/{name}/{key}": _exact(value)
            for name, one in self.scores.items()
            for key, value in one.as_metrics().items()
        }
        self.log_dict(metrics | {"step": _exact(self.steps)})

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The model's answers, int64 ``[B, T]``: token ids where the batch has labels, -100 elsewhere."""
        batch = as_batch(batch)
        return self(batch).argmax(-1).masked_fill(batch.labels == IGNORE, IGNORE)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        sharded = self.gradients.shards is not None
        model, exchange = cast(nn.Module, self.model), self.gradients.exchange
        check_weights(model, self.steps, self.experiment.training, exchange, sharded=sharded)
        checkpoint["experiment"] = self.experiment.to_dict()
        checkpoint["rng"] = torch.get_rng_state()

        self._flush()

    def teardown(self, stage: str) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._prelude is not None:
            self._prelude.flush()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        torch.set_rng_state(checkpoint["rng"])
        self._restored = True


def _exact(value: float) -> Tensor:
    """Logged as it is: Lightning would round a float to fp32."""
    return torch.tensor(value, dtype=torch.float64)
