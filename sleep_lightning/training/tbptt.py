"""The training walk: window by window, gradients through every pass, truncated where the config says so."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.sleep import IGNORE, AtBoundary, Checkpoint, Observer, SleepConfig, plan_windows, walk
from sleep_lightning.tasks import TaskBatch


def accumulate_gradients(
    model: HybridLM,
    batch: TaskBatch,
    sleep: SleepConfig,
    *,
    tbptt_windows: int | None = None,
    policy: Checkpoint = "none",
    weight: float = 1.0,
    backward: Callable[[Tensor], object] = torch.Tensor.backward,
) -> Tensor:
    """Add the gradient of the masked cross-entropy (mean over labels) of a batch to ``.grad``.

    Args:
        model: the hybrid.
        batch: tokens, and labels aligned to the logits.
        sleep: N and its options.
        tbptt_windows: detach the memory after every k windows; None: one backward through the whole sequence.
        policy: activation checkpointing.
        weight: factor on the loss (1 / micro-batches).
        backward: what to do with the loss of each segment.

    Returns:
        The detached mean loss, unweighted.
    """
    windows = plan_windows(batch.labels, sleep.window_size)
    n_labels = (batch.labels != IGNORE).sum().clamp(min=1)
    memory = model.zero_memory(len(batch.tokens), carry_conv_state=sleep.carry_conv_state)

    def ends_segment(i: int) -> bool:
        return i + 1 == len(windows) or (tbptt_windows is not None and (i + 1) % tbptt_windows == 0)

    def at_boundary(i: int, memory: Memory) -> Memory:
        return memory.detach() if ends_segment(i) else memory

    total = torch.zeros((), device=batch.tokens.device)
    segment: Tensor | None = None
    walked = walk(model, batch.tokens, windows, memory, sleep, policy=policy, at_boundary=at_boundary)
    for i, (window, h, _) in enumerate(walked):
        if h is not None:
            loss = _loss_sum(model.logits(h), batch.labels[:, window.start : window.stop]) / n_labels
            segment = loss if segment is None else segment + loss
        if segment is not None and ends_segment(i):
            backward(weight * segment)
            total, segment = total + segment.detach(), None
    return total


def _loss_sum(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")


@torch.no_grad()
def predict(
    model: HybridLM,
    batch: TaskBatch,
    sleep: SleepConfig,
    *,
    at_boundary: AtBoundary | None = None,
    observe: Observer | None = None,
) -> Tensor:
    """Logits ``[B, T, vocab]`` of one teacher-forced walk; zeros in windows that slept (they have none).

    ``at_boundary`` may change the memory between windows (zero it, say): that is how ablations are done.
    """
    windows = plan_windows(batch.labels, sleep.window_size)
    memory = model.zero_memory(len(batch.tokens), carry_conv_state=sleep.carry_conv_state)
    logits_BTV = torch.zeros(*batch.tokens.shape, model.head.out_features, device=batch.tokens.device)
    for window, h, _ in walk(model, batch.tokens, windows, memory, sleep, at_boundary=at_boundary, observe=observe):
        if h is not None:
            logits_BTV[:, window.start : window.stop] = model.logits(h)
    return logits_BTV
