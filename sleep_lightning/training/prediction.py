"""What a model says where it is asked, teacher-forced."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import WindowModel
from sleep_lightning.sleep import (
    IGNORE,
    AtBoundary,
    Observer,
    SleepConfig,
    Window,
    align_windows,
    is_answer,
    make_schedule,
    plan_windows,
    zero_memory,
)
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training.gradients import run_windows
from sleep_lightning.training.metrics import Answers

CHUNK = 1 << 26
"""Logits that are computed at a time."""


@torch.no_grad()
def predict(
    model: WindowModel,
    batch: TaskBatch,
    sleep: SleepConfig,
    *,
    at_boundary: AtBoundary | None = None,
    observe: Observer | None = None,
) -> Tensor:
    """Logits ``[B, T, vocab]``, teacher-forced; zeros in windows that slept (they have none).

    ``at_boundary`` may change the memory between windows (zero it, say), for ablations; ``observe`` is called after
    every sleeping pass.
    """
    place_BT = align_windows(batch.tokens, batch.labels, sleep, model.neutral_pad)
    moved = batch if place_BT is None else batch.moved(place_BT, model.neutral_pad)
    logits_BTV = torch.zeros(*batch.tokens.shape, model.vocab_size, device=batch.tokens.device)
    for window, h in _awake(model, moved, sleep, at_boundary, observe):
        said = model.logits(h)
        if place_BT is None:
            logits_BTV[:, window.start : window.stop] = said
        else:
            place = place_BT[:, window.start : window.stop].to(said.device)
            row, column = (place >= 0).nonzero(as_tuple=True)
            logits_BTV[row, place[row, column]] = said[row, column].to(logits_BTV.dtype)
    return logits_BTV


@torch.no_grad()
def answer(
    model: WindowModel,
    batch: TaskBatch,
    sleep: SleepConfig,
    *,
    at_boundary: AtBoundary | None = None,
    observe: Observer | None = None,
    windows: list[Window] | None = None,
) -> Answers:
    """The same, scored: logits are computed where there are labels only, and not kept.

    ``windows`` are the batch's if they are those of a larger batch, with whose rows it has been aligned.
    """
    batch = batch.aligned(sleep, model.neutral_pad) if windows is None else batch
    right_BT, loss_BT = torch.zeros_like(batch.labels, dtype=torch.bool), torch.zeros(batch.labels.shape)
    loss_BT = loss_BT.to(batch.labels.device)
    for window, h in _awake(model, batch, sleep, at_boundary, observe, windows):
        row, column = (batch.labels[:, window.start : window.stop] != IGNORE).nonzero(as_tuple=True)
        for r, c in zip(*(x.split(max(1, CHUNK // model.vocab_size)) for x in (row, column)), strict=True):
            logits, labels = model.logits(h[r, c]), batch.labels[r, window.start + c]
            right_BT[r, window.start + c] = logits.argmax(-1) == labels
            loss_BT[r, window.start + c] = F.cross_entropy(logits, labels, reduction="none").to(loss_BT.dtype)
    return Answers.cut(right_BT, loss_BT, batch)


def _awake(
    model: WindowModel,
    batch: TaskBatch,
    sleep: SleepConfig,
    at_boundary: AtBoundary | None,
    observe: Observer | None,
    windows: list[Window] | None = None,
) -> Iterator[tuple[Window, Tensor]]:
    """The windows of an aligned batch that answer, with their hidden states."""
    if windows is None:
        windows = plan_windows(batch.labels, sleep.window_size, model.padding(batch.tokens))
    memory = zero_memory(model, len(batch.tokens), sleep)
    [planned] = make_schedule(model, windows, sleep)
    options = {"at_boundary": at_boundary, "observe": observe, "answers_BT": is_answer(batch.labels)}
    awake, _ = run_windows(model, batch.tokens, planned, memory, sleep, **options)  # type: ignore[arg-type]
    return iter(awake)
