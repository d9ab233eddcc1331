"""The loss of a batch, window by window, and its gradient through every pass, truncated where configured."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import HybridLM, Memory, WindowModel
from sleep_lightning.model.parameter_groups import frozen_blocks
from sleep_lightning.sleep import (
    IGNORE,
    LARGE_VOCABULARY,
    AtBoundary,
    Checkpointing,
    Observer,
    PlannedWindow,
    SleepConfig,
    Window,
    is_answer,
    make_schedule,
    plan_windows,
    run_schedule,
    zero_memory,
)
from sleep_lightning.sleep.layerwise import Executor, is_layerwise_legal, run_layerwise
from sleep_lightning.sleep.schedule import recomputes_passes
from sleep_lightning.tasks import TaskBatch


def accumulate_gradients(
    model: WindowModel,
    batch: TaskBatch,
    sleep: SleepConfig,
    *,
    tbptt_windows: int | None = None,
    policy: Checkpointing = "none",
    executor: Executor = "auto",
    weight: float = 1.0,
    windows: list[Window] | None = None,
    n_labels: Tensor | None = None,
    static_shapes: bool = False,
    backward: Callable[[Tensor], object] = torch.Tensor.backward,
) -> Tensor:
    """Add the gradient of the masked cross-entropy (mean over labels) of a batch to ``.grad``.

    Args:
        model: any window model.
        batch: tokens, and labels aligned to the logits.
        sleep: N and its options.
        tbptt_windows: detach the memory after every k windows; None: one backward through the whole sequence.
        policy: activation checkpointing.
        executor: ``auto`` runs layer by layer where that is the same, ``windows`` never does.
        weight: factor on the loss (1 / micro-batches).
        windows: the batch's windows if they are known (planning them waits for the device); its rows are then aligned.
        n_labels: number of labels that the mean is over; None: those of this batch. Where the batch is a share of a
            larger one, its labels: gradients and losses of all shares then add up to those of the whole.
        static_shapes: compute all logits of windows that answer, of a large vocabulary too (CUDA graphs).
        backward: called with the loss of each segment.

    Returns:
        The detached mean loss, unweighted.

    Raises:
        ValueError: the model cannot recompute what ``policy`` asks it to, or leave out its MLPs as ``sleep`` does.
    """
    sleep = replace(sleep, tolerance=None)
    if windows is None:
        batch = batch.aligned(sleep, model.neutral_pad)
        windows = plan_windows(batch.labels, sleep.window_size, model.padding(batch.tokens))
    n_labels = ((batch.labels != IGNORE).sum() if n_labels is None else n_labels).clamp(min=1)
    memory = zero_memory(model, len(batch.tokens), sleep)
    total, answers_BT = torch.zeros((), device=batch.tokens.device), is_answer(batch.labels)
    frozen = frozen_blocks(model)
    for segment in make_schedule(
        model, windows, sleep, checkpointing=policy, tbptt_windows=tbptt_windows, frozen=frozen
    ):
        layerwise = executor == "auto" and not recomputes_passes(policy)
        awake, memory = run_windows(
            model, batch.tokens, segment, memory, sleep, may_run_layerwise=layerwise, answers_BT=answers_BT
        )
        where_labelled = model.vocab_size >= LARGE_VOCABULARY and not static_shapes
        losses = [
            _loss_sum(model, h, batch.labels[:, window.start : window.stop], where_labelled) / n_labels
            for window, h in awake
        ]
        if losses:
            loss = torch.stack(losses).sum()
            backward(weight * loss)
            total = total + loss.detach()
        memory = memory.detach()
    return total


def run_windows(
    model: WindowModel,
    tokens_BT: Tensor,
    planned: Sequence[PlannedWindow],
    memory: Memory,
    sleep: SleepConfig,
    *,
    may_run_layerwise: bool = True,
    at_boundary: AtBoundary | None = None,
    observe: Observer | None = None,
    answers_BT: Tensor | None = None,
) -> tuple[list[tuple[Window, Tensor]], Memory]:
    """Consecutive windows of a schedule by the fastest legal executor.

    Args:
        model: any window model.
        tokens_BT: token ids of the whole batch.
        planned: the windows.
        memory: memory before the first of them.
        sleep: N and its options.
        may_run_layerwise: False: window by window in any case, as with ``at_boundary`` and ``observe``.
        at_boundary, observe, answers_BT: as in ``run_window_loop``.

    Returns:
        The windows that answer with their hidden states, and the memory after the last window.
    """
    awake: list[tuple[Window, Tensor]] = []
    layerwise = may_run_layerwise and at_boundary is None and observe is None
    for run in _runs(model, planned, sleep, may_run_layerwise=layerwise):
        if run.model is not None:
            hidden, memory = run_layerwise(run.model, tokens_BT, run.planned, memory)
            awake += [(run.planned[i].window, h) for i, h in hidden.items()]
            continue
        executed = run_schedule(
            model,
            tokens_BT,
            run.planned,
            memory,
            sleep,
            at_boundary=at_boundary,
            observe=observe,
            answers_BT=answers_BT,
        )
        for window, h, memory in executed:  # noqa: B007  # not a list, which would keep the memory after every window
            if h is not None:
                awake.append((window, h))
    return awake, memory


class _Run(NamedTuple):
    """Consecutive windows, and the model if they are run layer by layer."""

    planned: Sequence[PlannedWindow]
    model: HybridLM | None


def _runs(
    model: WindowModel, planned: Sequence[PlannedWindow], sleep: SleepConfig, *, may_run_layerwise: bool
) -> list[_Run]:
    """All windows layer by layer where that is legal; else those of them that answer one after the other."""
    if may_run_layerwise and is_layerwise_legal(model, sleep):
        return [_Run(planned, model)]
    once = replace(sleep, n_passes=1, grad_passes=None)
    if not may_run_layerwise or not is_layerwise_legal(model, once):
        return [_Run(planned, None)]
    grouped = [(sleeps, list(run)) for sleeps, run in groupby(planned, key=lambda one: one.window.sleeps)]
    return [_Run(run, None if sleeps or len(run) == 1 else model) for sleeps, run in grouped]


def at_labels(h_BTE: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Of n labels alone: hidden states ``[1, n, d_model]`` and labels ``[1, n]``."""
    spoken_BT = labels_BT != IGNORE
    return h_BTE[spoken_BT][None], labels_BT[spoken_BT][None]


def _loss_sum(model: WindowModel, h: Tensor, labels: Tensor, where_labelled: bool) -> Tensor:
    if where_labelled:
        h, labels = at_labels(h, labels)
    return F.cross_entropy(model.logits(h).flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")
