"""The gradients of one optimizer step: over micro-batches, windows, passes and ranks."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from sleep_lightning.config import TrainingConfig
from sleep_lightning.model import HybridLM, WindowModel
from sleep_lightning.runs.signals import StopReason
from sleep_lightning.sleep import IGNORE, SleepConfig, plan_windows
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training.cuda_graph import GraphedGradients
from sleep_lightning.training.distributed.exchange import Exchange, all_reduce_gradients
from sleep_lightning.training.distributed.fsdp_strategy import SleepFSDPStrategy
from sleep_lightning.training.gradients import accumulate_gradients

if TYPE_CHECKING:
    from sleep_lightning.training.distributed.fsdp import Shards


class StepGradients:
    """Accumulates a batch's gradients in ``.grad`` and sums them over ranks in one exchange.

    Attributes:
        exchange: with the other ranks.
        shards: the model's shards under ``sleep_fsdp``; else None.
        stop_votes: reasons to stop that this rank has, 1 at their index in ``StopReason``; set by ``Preemption``.
        stop_agreed: the sum of all ranks' votes, as of the last step.
    """

    def __init__(self, model: WindowModel, training: TrainingConfig, reader: WindowModel | None = None) -> None:
        self.model, self.training, self._reader = model, training, reader or model
        self._graphed = GraphedGradients(model) if training.cuda_graph else None
        self.exchange = Exchange()
        self.shards: Shards | None = None
        self.stop_votes = [0.0] * len(StopReason)
        self.stop_agreed = self._votes_arriving = torch.zeros(len(StopReason))

    def forget_votes(self) -> None:
        """Another training begins, nobody has voted."""
        self.stop_votes[:] = [0.0] * len(self.stop_votes)
        self.stop_agreed = self._votes_arriving = torch.zeros(len(self.stop_votes))

    def connect(self, trainer: pl.Trainer) -> None:
        """Work with the ranks of this trainer, sharding the model if its strategy does."""
        self.exchange = Exchange.of(trainer)
        if isinstance(trainer.strategy, SleepFSDPStrategy):
            assert isinstance(self.model, HybridLM)  # the experiment refuses to shard others
            self.shards = trainer.strategy.shard(self.model, self.training)

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients must be zeroed in place: a CUDA graph adds to the tensors it was captured with."""
        return self._graphed is not None

    def __call__(
        self, batch: TaskBatch, sleep: SleepConfig, backward: Callable[[Tensor], object]
    ) -> tuple[Tensor, Tensor]:
        """Add the clipped gradients of a step.

        Args:
            batch: of all ranks.
            sleep: of this step.
            backward: called with the loss of each segment.

        Returns:
            The mean loss over all labels of all ranks, and the gradient's norm before clipping.
        """
        if self.shards is not None:
            self.shards.gather()
        loss, n = torch.zeros((), device=batch.tokens.device), self.training.accumulate
        n_labels = (batch.labels != IGNORE).sum() / n  # rows may have different numbers of them
        for part in self._micro_batches(batch):
            loss += self.accumulate(part, sleep, backward, n_labels) / n
        return self.reduce(loss, self.training.clip_norm or torch.inf)

    def _micro_batches(self, batch: TaskBatch) -> list[TaskBatch]:
        rows, n = len(batch.tokens), self.training.accumulate
        if rows % (n * self.exchange.size):
            raise ValueError(
                f"a batch of {rows} rows does not divide into training.accumulate={n} micro-batches on "
                f"{self.exchange.size} ranks; use a batch size that is a multiple of {n * self.exchange.size}"
            )
        return [batch.rows(start, start + rows // n) for start in range(0, rows, rows // n)]

    def accumulate(
        self, batch: TaskBatch, sleep: SleepConfig, backward: Callable[[Tensor], object], n_labels: Tensor
    ) -> Tensor:
        """Add the gradients of this rank's share of a micro-batch, its loss divided by ``n_labels``; returns that."""
        batch = batch.aligned(sleep, self.model.neutral_pad)
        t, share = self.training, self.exchange.share(batch)
        options: dict[str, Any] = {
            "n_labels": n_labels,
            "tbptt_windows": t.tbptt_windows,
            "policy": t.checkpointing,
            "executor": t.executor,
            "weight": 1 / t.accumulate,
        }
        if self._graphed is not None:
            return self._graphed(share, sleep, **options)
        # alike in all ranks
        windows = plan_windows(batch.labels, sleep.window_size, self.model.padding(batch.tokens))
        return accumulate_gradients(self._reader, share, sleep, backward=backward, windows=windows, **options)

    def reduce(self, loss: Tensor, clip_norm: float) -> tuple[Tensor, Tensor]:
        """Sum gradients, losses and votes to stop over all ranks, in the one exchange of a step (sharded matrices have
        theirs before), and clip. Returns the loss, and the gradient's norm before clipping."""
        votes, shards = torch.tensor(self.stop_votes), self.shards
        if self.exchange.size == 1:
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
