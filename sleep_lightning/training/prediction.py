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
    retrieve,
    run_window_loop,
    wake,
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


@torch.no_grad()
def decode(model: WindowModel, batch: TaskBatch, sleep: SleepConfig) -> Tensor:
    """Greedy answers ``[B, T]`` (-100 where there is no label): each is fed back as the next token."""
    place_BT = align_windows(batch.tokens, batch.labels, sleep, model.neutral_pad)
    moved = batch if place_BT is None else batch.moved(place_BT, model.neutral_pad)
    tokens, answers = moved.tokens.clone(), torch.full_like(moved.labels, IGNORE)
    labelled_BT, answers_BT = moved.labels != IGNORE, is_answer(moved.labels)
    memory = zero_memory(model, len(tokens), sleep)
    for window in plan_windows(moved.labels, sleep.window_size, model.padding(tokens)):
        before = memory
        if not window.sleeps:
            retrieved = retrieve(model, tokens, answers_BT, window, sleep)
            for t in range(window.start, window.stop):
                if labelled_BT[:, t].any():
                    h, _ = wake(model, tokens[:, window.start : t + 1], before, sleep, retrieved)
                    answers[:, t] = model.logits(h[:, -1]).argmax(-1).where(labelled_BT[:, t], IGNORE)
                    if t + 1 < tokens.shape[1]:
                        tokens[:, t + 1] = answers[:, t].where(labelled_BT[:, t], tokens[:, t + 1])
        _, _, memory = next(run_window_loop(model, tokens, [window], before, sleep, answers_BT=answers_BT))
    if place_BT is None:
        return answers
    row, column = (place_BT >= 0).nonzero(as_tuple=True)
    found = torch.full_like(batch.labels, IGNORE)
    found[row, place_BT[row, column].to(found.device)] = answers[row, column]
    return found


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
