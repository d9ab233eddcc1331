"""The training walk: window by window, gradients through every pass, truncated where the config says so."""

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.sleep import (
    IGNORE,
    WHOLE_PASSES,
    AtBoundary,
    Checkpoint,
    SleepConfig,
    Window,
    is_answer,
    plan_windows,
    run_window_loop,
    zero_memory,
)
from sleep_lightning.sleep.layerwise import Executor, run_layerwise, why_not_layerwise
from sleep_lightning.tasks import TaskBatch


def accumulate_gradients(
    model: HybridLM,
    batch: TaskBatch,
    sleep: SleepConfig,
    *,
    tbptt_windows: int | None = None,
    policy: Checkpoint = "none",
    executor: Executor = "auto",
    weight: float = 1.0,
    windows: list[Window] | None = None,
    n_labels: Tensor | None = None,
    backward: Callable[[Tensor], object] = torch.Tensor.backward,
) -> Tensor:
    """Add the gradient of the masked cross-entropy (mean over labels) of a batch to ``.grad``.

    Args:
        model: the hybrid.
        batch: tokens, and labels aligned to the logits.
        sleep: N and its options.
        tbptt_windows: detach the memory after every k windows; None: one backward through the whole sequence.
        policy: activation checkpointing.
        executor: ``auto`` runs layer by layer where that is the same, ``windows`` never does.
        weight: factor on the loss (1 / micro-batches).
        windows: the batch's plan if it is known (making it waits for the device).
        n_labels: labels that the mean is over; None: those of this batch. Where the batch is a share of a larger one,
            its labels: gradients and losses of all shares then add up to those of the whole.
        backward: what to do with the loss of each segment.

    Returns:
        The detached mean loss, unweighted.
    """
    windows = plan_windows(batch.labels, sleep.window_size) if windows is None else windows
    n_labels = ((batch.labels != IGNORE).sum() if n_labels is None else n_labels).clamp(min=1)
    memory = zero_memory(model, len(batch.tokens), sleep)
    total, answers_BT = torch.zeros((), device=batch.tokens.device), is_answer(batch.labels)
    k = tbptt_windows or len(windows)
    for first in range(0, len(windows), k):
        segment = windows[first : first + k]
        with model.shared_weights(batch.tokens[:, segment[0].start : segment[-1].stop].numel()):
            awake, memory = run_windows(
                model,
                batch.tokens,
                segment,
                memory,
                sleep,
                policy=policy,
                executor=executor,
                answers_BT=answers_BT,
            )
            losses = [
                _loss_sum(model.logits(h), batch.labels[:, window.start : window.stop]) / n_labels
                for window, h in awake
            ]
            if losses:
                loss = torch.stack(losses).sum()
                backward(weight * loss)
                total = total + loss.detach()
        memory = memory.detach()
    return total


def run_windows(
    model: HybridLM,
    tokens_BT: Tensor,
    windows: list[Window],
    memory: Memory,
    sleep: SleepConfig,
    *,
    policy: Checkpoint = "none",
    executor: Executor = "auto",
    at_boundary: AtBoundary | None = None,
    answers_BT: Tensor | None = None,
) -> tuple[list[tuple[Window, Tensor]], Memory]:
    """Consecutive windows by the fastest legal executor: those that answer with their hidden states, and memory."""
    awake: list[tuple[Window, Tensor]] = []
    may_choose = executor == "auto" and policy not in WHOLE_PASSES and at_boundary is None
    for run in _runs(model, windows, sleep, may_choose=may_choose):
        if run.layerwise:
            with model.mlps_recomputed(policy == "mlp"):
                hidden, memory = run_layerwise(model, tokens_BT, run.windows, memory, run.sleep)
            awake += [(run.windows[i], h) for i, h in hidden.items()]
            continue
        walked = run_window_loop(
            model,
            tokens_BT,
            run.windows,
            memory,
            run.sleep,
            policy=policy,
            at_boundary=at_boundary,
            answers_BT=answers_BT,
        )
        for window, h, memory in walked:  # noqa: B007  # not a list, which would keep the memory after every window
            if h is not None:
                awake.append((window, h))
    return awake, memory


class _Run(NamedTuple):
    """Consecutive windows and how they are run."""

    windows: list[Window]
    sleep: SleepConfig
    layerwise: bool


def _runs(model: HybridLM, windows: list[Window], sleep: SleepConfig, *, may_choose: bool) -> list[_Run]:
    """All windows layer by layer where that is legal; else those of them that answer one after the other."""
    once = replace(sleep, n_passes=1, grad_passes=None)
    if may_choose and why_not_layerwise(model, sleep) is None:
        return [_Run(windows, sleep, layerwise=True)]
    if not may_choose or why_not_layerwise(model, once) is not None:
        return [_Run(windows, sleep, layerwise=False)]
    grouped = [(sleeps, list(run)) for sleeps, run in groupby(windows, key=lambda window: window.sleeps)]
    return [_Run(run, sleep if sleeps else once, layerwise=not sleeps and len(run) > 1) for sleeps, run in grouped]


def _loss_sum(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")


@torch.no_grad()
def predict(
    model: HybridLM,
    batch: TaskBatch,
    sleep: SleepConfig,
    *,
    at_boundary: AtBoundary | None = None,
    windows: list[Window] | None = None,
) -> Tensor:
    """Logits ``[B, T, vocab]`` of one teacher-forced walk; zeros in windows that slept (they have none).

    ``at_boundary`` may change the memory between windows (zero it, say): that is how ablations are done. ``windows``
    is the batch's plan if it is that of a larger batch.
    """
    windows = plan_windows(batch.labels, sleep.window_size) if windows is None else windows
    memory = zero_memory(model, len(batch.tokens), sleep)
    logits_BTV = torch.zeros(*batch.tokens.shape, model.head.out_features, device=batch.tokens.device)
    awake, _ = run_windows(
        model, batch.tokens, windows, memory, sleep, at_boundary=at_boundary, answers_BT=is_answer(batch.labels)
    )
    for window, h in awake:
        logits_BTV[:, window.start : window.stop] = model.logits(h)
    return logits_BTV
