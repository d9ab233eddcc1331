"""What each sleeping pass does: how far it moves the memory and the hidden states, how much gradient it gets."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import Memory, WindowModel
from sleep_lightning.sleep import (
    Checkpointing,
    PassRecord,
    SleepConfig,
    Window,
    is_answer,
    plan_windows,
    run_window_loop,
    zero_memory,
)
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training.batches import as_batch
from sleep_lightning.training.gradients import at_labels

if TYPE_CHECKING:
    from sleep_lightning.training.module import SleepModule

ROWS = 32
"""Rows of the first validation batch that are diagnosed; no more than a micro-batch of training, whose step fits."""


class PassDiagnostics(pl.Callback):
    """Logs ``sleep/...``, what ``diagnose_passes`` finds on the first validation batch, with every validation."""

    def __init__(self) -> None:
        self._first: TaskBatch | None = None

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._first is None:
            self._first = as_batch(batch).rows(0, ROWS)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:  # type: ignore[override]
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or self._first is None:
            return
        if not trainer.loggers and pl_module.gradients.shards is None:  # gathering shards takes all ranks
            return
        t = pl_module.experiment.training
        rows = self._first.rows(0, t.batch_size // t.accumulate // t.processes)
        policy = "pass" if t.checkpointing == "window" else t.checkpointing  # a window has passes to look at
        found = diagnose_passes(pl_module.model, rows, pl_module.experiment.sleep, policy)
        for logger in trainer.loggers:
            logger.log_metrics({f"sleep/{name}": value for name, value in found.items()}, trainer.global_step)


def _norm(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([x.detach().float().norm() for x in tensors]).norm()


def _loss(model: WindowModel, h_BLE: Tensor, labels_BL: Tensor) -> Tensor:
    """Of the labels, where alone there are logits: a vocabulary may be large."""
    h, labels = at_labels(h_BLE, labels_BL)
    return F.cross_entropy(model.logits(h).flatten(0, 1), labels.flatten())


def diagnose_passes(
    model: WindowModel, batch: TaskBatch, sleep: SleepConfig, policy: Checkpointing = "none"
) -> dict[str, float]:
    """Per pass n, averaged over windows: ``memory_change`` |S_n - S_{n-1}| / |S_n|, ``hidden_drift``
    |h_n - h_{n-1}| / |h_{n-1}| (not for the last pass, whose h is never computed) and ``memory_grad_norm``
    |dL/dS_n|. Leaves ``.grad`` alone. Empty for a model without memory or a batch without sleep. ``policy``: activation
    checkpointing, as in training.
    """
    collected: dict[str, list[Tensor]] = defaultdict(list)
    written: list[tuple[int, Memory]] = []

    def observe(window: Window, record: PassRecord) -> None:
        states = record.memory_out.states
        if not states:
            return
        change = tuple(a - b for a, b in zip(states, record.memory_in.states, strict=True))
        collected[f"memory_change/pass_{record.n}"].append(_norm(change) / _norm(states).clamp(min=1e-12))
        if record.h_out is not None:
            drift = _norm((record.h_out - record.h_in,)) / _norm((record.h_in,)).clamp(min=1e-12)
            collected[f"hidden_drift/pass_{record.n}"].append(drift)
        if states[0].requires_grad:
            written.append((record.n, record.memory_out))

    batch = batch.aligned(sleep, model.neutral_pad)
    windows = plan_windows(batch.labels, sleep.window_size, model.padding(batch.tokens))
    with torch.enable_grad():
        memory = zero_memory(model, len(batch.tokens), sleep)
        answers_BT = is_answer(batch.labels)
        walked = run_window_loop(
            model, batch.tokens, windows, memory, sleep, policy=policy, observe=observe, answers_BT=answers_BT
        )
        losses = [_loss(model, h, batch.labels[:, w.start : w.stop]) for w, h, _ in walked if h is not None]
        states = [state for _, m in written for state in m.states]
        if states and losses:
            gradients = iter(torch.autograd.grad(sum(losses, torch.zeros(())), states, allow_unused=True))
            for n, m in written:
                own = [g for g in (next(gradients) for _ in m.states) if g is not None]
                collected[f"memory_grad_norm/pass_{n}"].append(_norm(tuple(own)) if own else torch.zeros(()))
    return {name: float(torch.stack(values).mean()) for name, values in sorted(collected.items())}
