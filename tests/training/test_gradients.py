"""Truncation, checkpointing and accumulation change what they are meant to and nothing else."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import HybridLM
from sleep_lightning.sleep import IGNORE, Checkpointing, SleepConfig, sleep, wake
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training import gradients as module
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.prediction import predict
from tests.conftest import tiny_batch, tiny_model

L = 6


def gradients(model: HybridLM) -> list[Tensor]:
    collected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return collected


def labelled_everywhere() -> TaskBatch:
    """Three windows: the first sleeps, the other two carry labels."""
    tokens = torch.randint(2, (4, 3 * L))
    labels = tokens.clone()
    labels[:, :L] = IGNORE
    return TaskBatch(tokens, labels)


def test_loss_and_gradient_are_those_of_the_written_out_loop() -> None:
    batch, model = tiny_batch(ring=L), tiny_model().double()
    loss = accumulate_gradients(model, batch, SleepConfig(L, 2))
    actual = gradients(model)
    memory = model.zero_memory(4)
    for start in (0, L, 2 * L):
        h = model.embed(batch.tokens[:, start : start + L])
        h, memory = model.blocks(h, memory)
        _, memory = model.blocks(h, memory)
    h, _ = model.blocks(model.embed(batch.tokens[:, 3 * L :]), memory)
    expected = F.cross_entropy(model.logits(h).flatten(0, 1), batch.labels[:, 3 * L :].flatten())
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), check_dtype=False)
    for a, b in zip(actual, gradients(model), strict=True):
        assert (a - b).norm() <= 1e-12 * b.norm()


def test_of_a_large_vocabulary_logits_are_computed_where_there_are_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, model = labelled_everywhere(), tiny_model().double()
    batch.labels[0, L:] = IGNORE  # but one, each row has other places
    for row in range(4):
        batch.labels[row, L + row] = batch.labels[row, 2 * L + row] = 1
    batch.labels[:, L:] = batch.labels[:, L:].where(torch.rand(4, 2 * L).lt(0.3) | (batch.labels[:, L:] == 1), IGNORE)
    loss = accumulate_gradients(model, batch, SleepConfig(L, 2))
    expected, seen, head = gradients(model), list[int](), model.logits
    monkeypatch.setattr(module, "LARGE_VOCABULARY", model.vocab_size)
    monkeypatch.setattr(model, "logits", lambda h: (seen.append(h.shape[:-1].numel()), head(h))[1])
    torch.testing.assert_close(accumulate_gradients(model, batch, SleepConfig(L, 2)), loss, check_dtype=False)
    for a, b in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert sum(seen) == (batch.labels != IGNORE).sum() < 4 * 2 * L
    accumulate_gradients(model, batch, SleepConfig(L, 2), static_shapes=True)
    assert sum(seen) == (batch.labels != IGNORE).sum() + 4 * 2 * L


@pytest.mark.parametrize("k", [4, 5, 100])
def test_truncation_beyond_the_sequence_is_full_bptt(k: int) -> None:
    batch, model = tiny_batch(ring=L), tiny_model()
    full_loss = accumulate_gradients(model, batch, SleepConfig(L, 2))
    full = gradients(model)
    loss = accumulate_gradients(model, batch, SleepConfig(L, 2), tbptt_windows=k)
    torch.testing.assert_close(loss, full_loss, rtol=1e-6, atol=1e-6)
    for a, b in zip(gradients(model), full, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_truncation_at_one_window_is_detaching_by_hand() -> None:
    batch, model, config = labelled_everywhere(), tiny_model().double(), SleepConfig(L, 2)
    loss = accumulate_gradients(model, batch, config, tbptt_windows=1)
    actual = gradients(model)
    memory = sleep(model, batch.tokens[:, :L], model.zero_memory(4), config).detach()
    total = torch.zeros(())
    for start in (L, 2 * L):
        h, memory = wake(model, batch.tokens[:, start : start + L], memory)
        one = F.cross_entropy(model.logits(h).flatten(0, 1), batch.labels[:, start : start + L].flatten()) / 2
        one.backward()
        total, memory = total + one.detach(), memory.detach()
    torch.testing.assert_close(loss, total, check_dtype=False)
    for a, b in zip(actual, gradients(model), strict=True):
        assert (a - b).norm() <= 1e-12 * b.norm()


def test_truncation_does_cut() -> None:
    batch, model, config = labelled_everywhere(), tiny_model(), SleepConfig(L, 2)
    accumulate_gradients(model, batch, config)
    full = gradients(model)
    accumulate_gradients(model, batch, config, tbptt_windows=1)
    assert any((a - b).norm() > 1e-3 * b.norm() for a, b in zip(gradients(model), full, strict=True))


@pytest.mark.parametrize("policy", ["mlp", "pass", "window"])
@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("grad_passes", [None, 1])
def test_checkpointing_changes_no_bit(policy: str, k: int | None, grad_passes: int | None) -> None:
    batch, model = tiny_batch(ring=L), tiny_model()
    config = SleepConfig(L, 3, grad_passes=grad_passes)
    accumulate_gradients(model, batch, config, tbptt_windows=k)
    expected = gradients(model)
    accumulate_gradients(model, batch, config, tbptt_windows=k, policy=policy)  # type: ignore[arg-type]
    for a, b in zip(gradients(model), expected, strict=True):
        assert torch.equal(a, b)


def test_micro_batches_add_up() -> None:
    batch, model, config = tiny_batch(rows=6, ring=L), tiny_model(), SleepConfig(L, 2)
    accumulate_gradients(model, batch, config)
    whole = gradients(model)
    for start in (0, 2, 4):
        accumulate_gradients(model, batch.rows(start, start + 2), config, weight=1 / 3)
    for a, b in zip(gradients(model), whole, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-7


def test_predict_gives_the_training_logits() -> None:
    batch, model, config = tiny_batch(ring=L), tiny_model(), SleepConfig(L, 2)
    loss = accumulate_gradients(model, batch, config)
    logits = predict(model, batch, config)
    assert not logits[:, : 3 * L].any()
    torch.testing.assert_close(F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten()), loss)


@pytest.mark.parametrize(("n_passes", "pass_input"), [(1, "hidden"), (3, "embed")])
@pytest.mark.parametrize("k", [None, 1, 2])
@pytest.mark.parametrize("policy", ["none", "mlp"])
def test_the_fast_executor_trains_the_same(
    n_passes: int, pass_input: str, k: int | None, policy: Checkpointing
) -> None:
    batch, model = labelled_everywhere(), tiny_model()
    config = SleepConfig(L, n_passes, pass_input=pass_input)  # type: ignore[arg-type]
    loss = accumulate_gradients(model, batch, config, tbptt_windows=k, executor="windows")
    expected = gradients(model)
    torch.testing.assert_close(accumulate_gradients(model, batch, config, tbptt_windows=k, policy=policy), loss)
    for a, b in zip(gradients(model), expected, strict=True):
        assert (a - b).norm() <= 2e-6 * max(b.norm(), 1.0)
