"""The LightningModule: one training step is one optimizer step over one batch, window by window."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.config.stages import sleep_of, stage_of
from sleep_lightning.model import HybridLM
from sleep_lightning.model.parameter_groups import set_trained
from sleep_lightning.sleep import IGNORE, SleepConfig, plan_windows
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training.any_trainer import default_callbacks, refuse_unsupported
from sleep_lightning.training.batches import as_batch
from sleep_lightning.training.callbacks.preemption import StopReason
from sleep_lightning.training.cuda_graph import GraphedGradients
from sleep_lightning.training.distributed.exchange import Exchange, all_reduce_gradients
from sleep_lightning.training.distributed.fsdp_strategy import SleepFSDPStrategy
from sleep_lightning.training.errors import check_loss, check_weights
from sleep_lightning.training.gradients import accumulate_gradients, predict
from sleep_lightning.training.metrics import Answers, Score, score
from sleep_lightning.training.optimizer import build_optimizer
from sleep_lightning.training.schedule import build_schedule

if TYPE_CHECKING:
    from sleep_lightning.training.distributed.fsdp import Shards


class SleepModule(pl.LightningModule):
    """Trains a window model under Algorithm 1 with truncated or full BPTT, in any ``lightning.Trainer``.

    Batches are ``TaskBatch``es, or ``(tokens, labels)`` as a tuple or a mapping, int64 ``[B, T]``: labels are aligned
    to the logits (``labels[:, t]`` is the target of position t), -100 where there is no loss. With several devices
    (``strategy="sleep_ddp"`` or ``"sleep_fsdp"``) every rank is given the whole batch and takes its share of the rows.

    Logged: ``train/{loss,grad_norm,muon_lr}``, ``val/...`` and ``test/...`` (exact match, token accuracy, loss and
    baselines, over all answers and by slice).

    Args:
        experiment: the experiment, or its plain form (``Experiment.to_dict``), which is the module's only
            hyperparameter and travels in every checkpoint.

    Attributes:
        model: the window model.
        scores: of the last validation or test, by slice.
        step_tokens: tokens of the last training batch; before it, those that the experiment expects.
        history: a dict for every validation so far; filled by the ``History`` callback.
        stop_votes: reasons to stop that this rank has, 1 at their index in ``StopReason``; set by ``Preemption``.
        stop_agreed: the sum of all ranks' votes, as of the last training step.
    """

    def __init__(self, experiment: Experiment | Mapping[str, Any]) -> None:
        super().__init__()
        self.automatic_optimization = False  # one step has many backward calls: one a segment of truncated BPTT
        self.experiment = experiment if isinstance(experiment, Experiment) else load_experiment(dict(experiment))
        self.save_hyperparameters({"experiment": self.experiment.to_dict()})
        self.task = self.experiment.task.build()
        self.model = self.experiment.build_model(self.task)
        if self.experiment.training.compile:
            cast(HybridLM, self.model).compile_passes()  # the experiment has checked that it has the method
        self._graphed = GraphedGradients(self.model) if self.experiment.training.cuda_graph else None
        self.shards: Shards | None = None
        self.step_tokens = self.experiment.training.batch_size * self.task.sequence_length
        self.scores: dict[str, Score] = {}
        self.history: list[dict[str, float]] = []
        self._answers: list[Answers] = []
        self._exchange = Exchange()
        self.stop_votes = [0.0] * len(StopReason)
        self.stop_agreed = self._votes_arriving = torch.zeros(len(StopReason))

    @property
    def steps(self) -> int:
        """Optimizer steps done."""
        return self.trainer.global_step

    def forward(self, batch: TaskBatch | Sequence[Tensor] | Mapping[str, Tensor]) -> Tensor:
        """Logits ``[B, T, vocab]`` of one teacher-forced pass over the windows; zeros in windows that sleep."""
        return predict(self.model, as_batch(batch), self.experiment.sleep)

    def configure_callbacks(self) -> list[pl.Callback]:
        """Refuses what this module cannot train under, and adds the callbacks that it needs and the trainer lacks."""
        refuse_unsupported(self.trainer, self.experiment)
        return default_callbacks(self.trainer)

    def setup(self, stage: str) -> None:
        self._exchange = Exchange.of(self.trainer)
        if isinstance(strategy := self.trainer.strategy, SleepFSDPStrategy):
            assert isinstance(self.model, HybridLM)  # the experiment refuses to shard others
            self.shards = strategy.shard(self.model, self.experiment.training)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.experiment.training)
        schedule = build_schedule(optimizer, self.experiment.training)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t, batch = self.experiment.training, as_batch(batch)
        self.step_tokens = batch.tokens.numel()
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad(set_to_none=self._graphed is None)  # type: ignore[union-attr]
        sleep = sleep_of(self.experiment, self.steps)
        if t.stages:
            set_trained(self.model, stage_of(self.experiment, self.steps).train)
        if self.shards is not None:
            self.shards.gather()
        loss = torch.zeros((), device=self.device)
        for part in self._micro_batches(batch):
            loss += self._accumulate(part, sleep) / t.accumulate
        loss, norm = self._reduce(loss, t.clip_norm or torch.inf)
        learning_rate = optimizer.param_groups[0]["lr"]  # type: ignore[union-attr]
        optimizer.step()  # type: ignore[union-attr]
        schedule.step()  # type: ignore[union-attr]
        if (consumed := getattr(getattr(self.trainer, "datamodule", None), "consumed", None)) is not None:
            consumed(batch)  # here: checkpoints are saved right after
        if self.steps % t.log_every == 0:
            check_loss("training", float(loss), self.steps, t)
        metrics = {"train/loss": loss, "train/grad_norm": norm, "train/muon_lr": _exact(learning_rate)}
        self.log_dict(metrics | {"step": _exact(self.steps)})
        return loss

    def _micro_batches(self, batch: TaskBatch) -> list[TaskBatch]:
        rows, n = len(batch.tokens), self.experiment.training.accumulate
        if rows % (n * self._exchange.size):
            raise ValueError(
                f"a batch of {rows} rows does not divide into training.accumulate={n} micro-batches on "
                f"{self._exchange.size} ranks; use a batch size that is a multiple of {n * self._exchange.size}"
            )
        return [batch.rows(start, start + rows // n) for start in range(0, rows, rows // n)]

    def _accumulate(self, batch: TaskBatch, sleep: SleepConfig) -> Tensor:
        t, share, n_labels = self.experiment.training, self._exchange.share(batch), (batch.labels != IGNORE).sum()
        options: dict[str, Any] = {
            "tbptt_windows": t.tbptt_windows,
            "policy": t.checkpointing,
            "executor": t.executor,
            "weight": 1 / t.accumulate,
        }
        if self._graphed is not None:
            return self._graphed(share, sleep, n_labels=n_labels, **options)
        options |= {
            "n_labels": n_labels,
            "windows": plan_windows(batch.labels, sleep.window_size),
        }  # alike in all ranks
        return accumulate_gradients(self.model, share, sleep, backward=self.manual_backward, **options)

    def _reduce(self, loss: Tensor, clip_norm: float) -> tuple[Tensor, Tensor]:
        """Sum gradients, losses and votes to stop over all ranks, in the one exchange of a step (sharded matrices have
        theirs before). Returns the loss, and the gradient's norm before clipping."""
        votes, shards = torch.tensor(self.stop_votes), self.shards
        if self._exchange.size == 1:
            self.stop_agreed = votes
            return loss, clip_grad_norm_(self.model.parameters(), clip_norm)
        squares = torch.zeros_like(loss) if shards is None else shards.reduce_gradients()
        copies = list(self.model.parameters()) if shards is None else shards.copies
        extra = torch.cat([loss[None], squares[None], votes.to(loss.device)])
        loss, squares, votes = all_reduce_gradients(copies, extra).tensor_split([1, 2])
        # on a GPU those of the step before, which have arrived: looking at these now would wait for the device
        arriving = votes.to("cpu", non_blocking=True)
        self.stop_agreed = self._votes_arriving if votes.is_cuda else arriving
        self._votes_arriving = arriving
        norm = clip_grad_norm_(copies, clip_norm) if shards is None else shards.clip_gradients(squares[0], clip_norm)
        return loss[0], norm

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if self.shards is not None:
            self.shards.gather()
        batch, sleep = as_batch(batch), self.experiment.sleep
        share, windows = self._exchange.share(batch), plan_windows(batch.labels, sleep.window_size)
        self._answers.append(Answers.of(predict(self.model, share, sleep, windows=windows), share))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._score("val")
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_loss("validation", self.scores["all"].loss, self.steps, self.experiment.training)

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _score(self, split: str) -> None:
        self.scores, self._answers = score(self._exchange.gather(self._answers)), []
        if self.shards is not None:
            self.shards.scatter()
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
        check_weights(
            cast(nn.Module, self.model),
            self.steps,
            self.experiment.training,
            self._exchange,
            sharded=self.shards is not None,
        )
        checkpoint["experiment"] = self.experiment.to_dict()
        checkpoint["rng"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        torch.set_rng_state(checkpoint["rng"])


def _exact(value: float) -> Tensor:
    """Logged as it is: Lightning would round a float to fp32."""
    return torch.tensor(value, dtype=torch.float64)
