"""Rows of different lengths in one batch compute what each computes alone."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import HybridLM
from sleep_lightning.sleep import (
    IGNORE,
    SleepConfig,
    Window,
    align_windows,
    is_answer,
    plan_windows,
    run_window_loop,
    zero_memory,
)
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.metrics import Answers, score
from sleep_lightning.training.prediction import answer, predict
from tests.conftest import tiny_model

L, PAD, VOCAB = 5, 7, 8
PLANS = ["S", "A", "SA", "SSSA", "SASSA", "ASA", "SSASAA", "SAS"]
"""A letter for every window: sleeps, answers."""


def row(plan: str, generator: torch.Generator, left: bool) -> tuple[Tensor, Tensor]:
    """Tokens and labels of windows that are partly pads, behind the tokens, or left of them in windows that sleep."""
    tokens, labels = torch.full((len(plan), L), PAD), torch.full((len(plan), L), IGNORE)
    for i, kind in enumerate(plan):
        n = int(torch.randint(2, L + 1, (), generator=generator))
        part = slice(L - n, L) if kind == "S" and left else slice(0, n)
        tokens[i, part] = torch.randint(PAD, (n,), generator=generator)
        if kind == "A":
            labels[i, n - 2 : n] = torch.randint(PAD, (2,), generator=generator)
    return tokens.flatten(), labels.flatten()


def batch_of(plans: list[str], cut: int = 0, left: bool = True) -> tuple[TaskBatch, list[tuple[Tensor, Tensor]]]:
    """Rows of these plans, each filled up on the right, ``cut`` tokens short of whole windows; and each alone."""
    generator = torch.Generator().manual_seed(len(plans))
    rows = [row(plan, generator, left) for plan in plans]
    width = max(len(tokens) for tokens, _ in rows)
    tokens = torch.stack([F.pad(tokens, (0, width - len(tokens)), value=PAD) for tokens, _ in rows])
    labels = torch.stack([F.pad(labels, (0, width - len(labels)), value=IGNORE) for _, labels in rows])
    T = width - cut
    return TaskBatch(tokens[:, :T], labels[:, :T]), [(tokens[:T], labels[:T]) for tokens, labels in rows]


def model_in_float64(**overrides: object) -> HybridLM:
    model = tiny_model(vocab_size=VOCAB, **overrides).double()
    model.neutral_pad = PAD
    return model


def alone(model: HybridLM, tokens: Tensor, labels: Tensor, config: SleepConfig) -> Tensor:
    """Summed loss of a row, window by window, without its pads: windows of different lengths."""
    windows, kept, start = [], [], 0
    for first in range(0, len(tokens), L):
        real = (tokens[first : first + L] != PAD).nonzero()[:, 0] + first
        stop = start + len(real)
        windows.append(Window(start, stop, sleeps=not (labels[first : first + L] != IGNORE).any()))
        kept, start = [*kept, real], stop
    tokens, labels = (x[torch.cat(kept)][None] for x in (tokens, labels))
    steps = run_window_loop(model, tokens, windows, zero_memory(model, 1, config), config)
    losses = [
        F.cross_entropy(model.logits(h)[0], labels[0, w.start : w.stop], ignore_index=IGNORE, reduction="sum")
        for w, h, _ in steps
        if h is not None and not w.sleeps
    ]
    return sum(losses, torch.zeros((), dtype=torch.float64))


def gradients(model: HybridLM) -> list[Tensor]:
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.zero_grad()
    return found


@pytest.mark.parametrize(
    ("pattern", "n_passes", "loop", "policy"),
    [("AGAG", 1, "all", "none"), ("AGAG", 3, "1/2/1", "none"), ("JA", 3, "all", "pass"), ("JA", 2, "0/1/1", "mlp")],
)
def test_a_batch_has_loss_and_gradients_of_its_rows_alone(pattern: str, n_passes: int, loop: str, policy: str) -> None:
    model = model_in_float64(pattern=pattern)
    config, plans = SleepConfig(L, n_passes, loop=loop), PLANS[3:7]
    batch, rows = batch_of(plans, cut=2, left=False)
    n_labels = int((batch.labels != IGNORE).sum())
    expected = sum((alone(model, *one, config) for one in rows), torch.zeros((), dtype=torch.float64)) / n_labels
    expected.backward()
    wanted = gradients(model)
    loss = accumulate_gradients(model, batch, config, policy=policy)  # type: ignore[arg-type]
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-13, atol=0)
    assert sum(float(g.norm()) for g in wanted) > 0.1
    for a, b in zip(gradients(model), wanted, strict=True):
        assert (a - b).norm() <= 1e-12 * max(float(g.norm()) for g in wanted)


@pytest.mark.parametrize(
    "config",
    [
        SleepConfig(L, 2, eviction="sliding"),
        SleepConfig(L, 2, carry_conv_state=True),
        SleepConfig(L, 2, retrieved_windows=2),
        SleepConfig(L, 3, tolerance=0.3),
        SleepConfig(L, 2, wake_passes=2),
    ],
    ids=lambda c: repr(c)[:60],
)
def test_more_that_crosses_windows(config: SleepConfig) -> None:
    """Rows as long as they like in front of their answers: pads come first."""
    _same_as_alone(model_in_float64(), config, ["SSSSA", "SA", "SSA", "A", "SSAA"])


def test_pads_on_the_left_only_shift_positions() -> None:
    """So that rotations, of fp32 tables, round differently."""
    model, config = model_in_float64(), SleepConfig(L, 2)
    batch, rows = batch_of(["SASSA", "SSSA", "A"])
    expected = sum(alone(model, *one, config).item() for one in rows) / int((batch.labels != IGNORE).sum())
    assert float(accumulate_gradients(model, batch, config)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("plans", [["SSSSA", "SA", "SASSA"]])
def test_pads_between_windows_leave_no_summary_and_are_not_retrieved(plans: list[str]) -> None:
    _same_as_alone(model_in_float64(pattern="AA", summary_tokens=2), SleepConfig(L, 2), plans)
    _same_as_alone(model_in_float64(), SleepConfig(L, 2, retrieved_windows=3), plans)


def _same_as_alone(model: HybridLM, config: SleepConfig, plans: list[str]) -> None:
    batch, rows = batch_of(plans)
    losses = answer(model, batch, config).loss
    for (tokens, labels), loss in zip(rows, losses, strict=True):
        one = answer(model, TaskBatch(tokens[None], labels[None]), config)
        torch.testing.assert_close(loss[: one.loss.shape[1]], one.loss[0], rtol=1e-6, atol=0)  # losses are fp32


@pytest.mark.parametrize("option", [{"eviction": "sliding"}, {"carry_conv_state": True}])
def test_what_else_crosses_windows_does_not_cross_pads(option: dict[str, object]) -> None:
    batch, _ = batch_of(["SASSA", "SSASA"])
    with pytest.raises(ValueError, match=r"use sleep.eviction=hard and sleep.carry_conv_state=false"):
        batch.aligned(SleepConfig(L, **option), PAD)  # type: ignore[arg-type]
    batch.aligned(SleepConfig(L), PAD)


def test_windows_of_the_same_kind_stand_side_by_side() -> None:
    batch, _ = batch_of(["SASSA", "A", "SSAA", "SAS"])
    aligned = batch.aligned(SleepConfig(L), PAD)
    windows = plan_windows(aligned.labels, L, aligned.tokens == PAD)
    assert [w.sleeps for w in windows] == [True, False, True, True, False, False]
    real = (aligned.tokens != PAD).unflatten(1, (-1, L)).any(-1).int().tolist()
    assert real == [[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0], [0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0]]


def test_a_batch_that_is_fine_is_left_alone_and_windows_of_pads_are_left_out() -> None:
    batch, _ = batch_of(["SSA", "SSA"])
    assert batch.aligned(SleepConfig(L), PAD) is batch
    assert batch.aligned(SleepConfig(L), None) is batch
    padded = TaskBatch(F.pad(batch.tokens, (2 * L, 0), value=PAD), F.pad(batch.labels, (2 * L, 0), value=IGNORE))
    assert torch.equal(padded.aligned(SleepConfig(L), PAD).tokens, batch.tokens)
    unlabelled = TaskBatch(padded.tokens, torch.full_like(padded.labels, IGNORE))
    assert unlabelled.aligned(SleepConfig(L), PAD) is unlabelled


def test_without_a_neutral_pad_rows_of_different_plans_are_refused() -> None:
    batch, _ = batch_of(["SASSA", "SSASA"])
    with pytest.raises(ValueError, match=r"labels in 1 of 2 rows.*neutral pad"):
        accumulate_gradients(tiny_model(vocab_size=VOCAB), batch, SleepConfig(L))


def test_no_token_is_lost_or_doubled() -> None:
    batch, rows = batch_of(PLANS[1:], cut=1)
    place = align_windows(batch.tokens, batch.labels, SleepConfig(L), PAD)
    assert place is not None
    for line, (_, labels), plan in zip(place, rows, PLANS[1:], strict=True):
        kept = line[line >= 0]
        assert len(kept) == len(kept.unique())
        last = len(labels) if plan.endswith("A") else len(labels) - L
        assert set(range(min(last, batch.tokens.shape[1]))) <= set(kept.tolist())


def test_predictions_come_back_where_the_labels_are() -> None:
    model, config = model_in_float64(), SleepConfig(L, 2)
    batch, _ = batch_of(["SASSA", "A", "SSAA"])
    whole = score([Answers.of(predict(model, batch, config), batch)])["all"]
    scored = score([answer(model, batch, config)])["all"]
    assert whole.loss == pytest.approx(scored.loss, rel=1e-6)
    assert whole.token_accuracy == scored.token_accuracy
    assert not is_answer(batch.labels).equal(is_answer(batch.aligned(config, PAD).labels))
