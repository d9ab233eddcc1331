"""The LightningModule: one training step is one optimiser step over one batch, window by window."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from sleep_lightning.config import Experiment
from sleep_lightning.config.stages import sleep_of, stage_of
from sleep_lightning.cost.run_flops import StepFlops
from sleep_lightning.cost.step_memory import predict_step_memory
from sleep_lightning.model.parameter_groups import set_trained
from sleep_lightning.sleep import IGNORE, SleepConfig, plan_windows
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training.callbacks.pass_diagnostics import diagnose_passes
from sleep_lightning.training.callbacks.preemption import StopReason
from sleep_lightning.training.callbacks.resource_monitor import ResourceUsage
from sleep_lightning.training.cuda_graph import GraphedGradients
from sleep_lightning.training.distributed.ranks import ALONE, Ranks, all_reduce_gradients, copy_from_first
from sleep_lightning.training.errors import check_loss, check_weights
from sleep_lightning.training.gradients import accumulate_gradients, predict
from sleep_lightning.training.metrics import Answers, Score, score
from sleep_lightning.training.optimizer import build_optimizer
from sleep_lightning.training.schedule import build_schedule

if TYPE_CHECKING:
    from sleep_lightning.training.distributed.fsdp import Shards

DIAGNOSED_ROWS = 32


class SleepModule(pl.LightningModule):
    """Trains a HybridLM under Algorithm 1 with truncated or full BPTT (manual optimisation).

    Args:
        experiment: the whole experiment; a plain copy of it travels in every checkpoint.
        ranks: who trains it together, each with the same module. Batches, scores, costs and history are of all.

    Attributes:
        stop_wanted: reasons to stop early that this rank has, 1 at their number; ``StopOnSignal`` sets them.
        stop_agreed: the same of all ranks added up, as the last training step found them.
    """

    def __init__(self, experiment: Experiment, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.experiment, self.ranks = experiment, ranks
        self.usage = ResourceUsage()  # first: what is held now is not the model's
        self.task = experiment.task.build()
        self.model = experiment.build_model(self.task)
        if experiment.training.compile:
            self.model.compile_passes()
        self._graphed = GraphedGradients(self.model) if experiment.training.cuda_graph else None
        self.shards: Shards | None = None
        self.step_flops, self.train_flops = StepFlops(experiment, self.model), 0
        self.step_tokens = experiment.training.batch_size * self.task.sequence_length
        self.scores: dict[str, Score] = {}
        self.history: list[dict[str, float]] = []
        self.digests: dict[str, str] = {}  # by step: hash of the training data up to there
        self._answers: list[Answers] = []
        self.predicted_step_memory: int | None = None
        self._first_batch: TaskBatch | None = None
        self.stop_wanted = [0.0] * len(StopReason)
        self.stop_agreed = self._stop_arriving = torch.zeros(len(StopReason))

    @property
    def steps(self) -> int:
        """Optimiser steps done."""
        return self.trainer.global_step

    def cost_so_far(self) -> dict[str, float]:
        """Tokens and FLOPs of training until now: logged beside every metric."""
        return {
            "cost/tokens": float(self.steps * self.step_tokens),
            "cost/train_flops": float(self.train_flops),
        }

    def measured_so_far(self) -> dict[str, float]:
        """What was measured of it: ``ResourceUsage.measured``, logged beside every validation."""
        return {f"cost/{name}": x for name, x in self.usage.measured(self.steps, self.step_tokens).items()}

    def configure_model(self) -> None:
        t = self.experiment.training
        if t.sharding == "full" and self.shards is None:
            from sleep_lightning.training.distributed.fsdp import Shards  # only here: torch's sharded tensors take long

            self.shards = Shards(self.model, t, self.trainer.strategy.root_device)

    def on_train_start(self) -> None:
        if self.ranks.size > 1:
            copy_from_first(list(self.model.parameters()) if self.shards is None else self.shards.copies)
        with nullcontext() if self.shards is None else self.shards.gathered():
            self.predicted_step_memory = predict_step_memory(self.experiment, self.model)
        self.usage.begin(self.device, self.ranks)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.usage.keep_energy()

    def on_validation_start(self) -> None:
        self.usage.pause()

    def on_validation_end(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.usage.resume()

    def on_train_end(self) -> None:
        self.usage.pause()

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.experiment.training)
        return {"optimizer": optimizer, "lr_scheduler": build_schedule(optimizer, self.experiment.training)}

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        t = self.experiment.training
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad(set_to_none=self._graphed is None)  # type: ignore[union-attr]
        sleep = sleep_of(self.experiment, self.steps)
        if t.stages:
            set_trained(self.model, stage_of(self.experiment, self.steps).train)
        if self.shards is not None:
            self.shards.gather()
        loss = torch.zeros((), device=self.device)
        size = t.batch_size // t.accumulate
        for rows in range(0, t.batch_size, size):
            loss += self._accumulate(batch.rows(rows, rows + size), sleep) / t.accumulate
        loss, norm = self._reduce(loss, t.clip_norm or torch.inf)
        self.train_flops += self.step_flops(sleep)
        optimizer.step()  # type: ignore[union-attr]
        schedule.step()  # type: ignore[union-attr]
        self.trainer.datamodule.consumed(batch)  # type: ignore[attr-defined]  # here: checkpoints are saved right after
        if self.steps % t.log_every == 0:
            self._log_step(float(loss), float(norm), optimizer.param_groups[0]["lr"])  # type: ignore[union-attr]
        return loss

    def _log_step(self, loss: float, norm: float, learning_rate: float) -> None:
        check_loss("training", loss, self.steps, self.experiment.training)
        if self.logger is not None:
            metrics = {"train/loss": loss, "train/grad_norm": norm, "train/muon_lr": learning_rate}
            self.logger.log_metrics(metrics | self.cost_so_far(), self.steps)

    def _accumulate(self, batch: TaskBatch, sleep: SleepConfig) -> Tensor:
        t, share, n_labels = self.experiment.training, self.ranks.share(batch), (batch.labels != IGNORE).sum()
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
        """Add up gradients, losses and reasons to stop over all ranks, in the one exchange of a step (sharded
        matrices have theirs before). Returns the loss, and the gradient's norm before it is clipped."""
        wanted, shards = torch.tensor(self.stop_wanted), self.shards
        if self.ranks.size == 1:
            self.stop_agreed = wanted
            return loss, clip_grad_norm_(self.model.parameters(), clip_norm)
        squares = torch.zeros_like(loss) if shards is None else shards.reduce_gradients()
        copies = list(self.model.parameters()) if shards is None else shards.copies
        extra = torch.cat([loss[None], squares[None], wanted.to(loss.device)])
        loss, squares, votes = all_reduce_gradients(copies, extra).tensor_split([1, 2])
        # on a GPU those of the step before, which have arrived: looking at these now would wait for the device
        arriving = votes.to("cpu", non_blocking=True)
        self.stop_agreed = self._stop_arriving if votes.is_cuda else arriving
        self._stop_arriving = arriving
        norm = clip_grad_norm_(copies, clip_norm) if shards is None else shards.clip_gradients(squares[0], clip_norm)
        return loss[0], norm

    def validation_step(self, batch: TaskBatch, batch_idx: int) -> None:
        share, sleep = self.ranks.share(batch), self.experiment.sleep
        if self.shards is not None:
            self.shards.gather()
        windows = plan_windows(batch.labels, sleep.window_size)
        self._answers.append(Answers.of(predict(self.model, share, sleep, windows=windows), share))
        self._first_batch = self._first_batch or batch

    def on_validation_epoch_end(self) -> None:
        self._end_validation()
        if self.shards is not None:
            self.shards.scatter()

    def _end_validation(self) -> None:
        self.scores, self._answers = score(self.ranks.gather(self._answers)), []
        self.log_dict({f"val/{name}": value for name, value in self.scores["all"].as_metrics().items()}, logger=False)
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        check_loss("validation", self.scores["all"].loss, self.steps, self.experiment.training)
        metrics = self.cost_so_far() | self.measured_so_far()
        self.digests[str(self.steps)] = self.trainer.datamodule.digest  # type: ignore[attr-defined]
        by_slice = {f"{name}/exact_match": one.exact_match for name, one in self.scores.items() if name != "all"}
        self.history.append({"step": self.steps} | metrics | self.scores["all"].as_metrics() | by_slice)
        if self.logger is None and self.shards is None:
            return
        for name, one in self.scores.items():
            prefix = "val" if name == "all" else f"val/{name}"
            metrics |= {f"{prefix}/{key}": value for key, value in one.as_metrics().items()}
        if self._first_batch is not None:  # shards are gathered, which takes all ranks
            diagnostics = diagnose_passes(self.model, self._first_batch.rows(0, DIAGNOSED_ROWS), self.experiment.sleep)
            metrics |= {f"sleep/{name}": value for name, value in diagnostics.items()}
        if self.logger is not None:
            self.logger.log_metrics(metrics, self.steps)

    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        self.scores, self._answers = score(self.ranks.gather(self._answers)), []
        if self.shards is not None:
            self.shards.scatter()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_weights(self.model, self.steps, self.experiment.training, self.ranks)
        checkpoint["experiment"] = self.experiment.to_dict()
        checkpoint["rng"] = torch.get_rng_state()
        checkpoint["history"] = self.history
        checkpoint["predicted_step_memory"] = self.predicted_step_memory
        checkpoint.update(self.usage.state_dict())
        checkpoint["train_flops"], checkpoint["digests"] = self.train_flops, self.digests

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        torch.set_rng_state(checkpoint["rng"])
        self.history, self.predicted_step_memory = checkpoint["history"], checkpoint.get("predicted_step_memory")
        self.usage.load_state_dict(checkpoint, steps=checkpoint["global_step"])
        self.train_flops, self.digests = checkpoint["train_flops"], checkpoint["digests"]
