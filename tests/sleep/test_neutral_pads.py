"""Neutral pads leave no trace: not attended to, no write, no decay."""

import pytest
import torch

from sleep_lightning.sleep import SleepConfig, plan_windows, run_window_loop, sleep, wake, zero_memory
from sleep_lightning.tasks import DepoConfig, TaskBatch
from tests.conftest import tiny_model

L, PAD = 8, 2


@pytest.mark.parametrize("backend", ["auto", "chunked", "reference"])
@pytest.mark.parametrize("n_passes", [1, 3])
@pytest.mark.parametrize("pattern", ["AGAG", "AHAH", "ADAD", "AJAJ"])
def test_a_window_of_pads_leaves_memory_bit_unchanged(backend: str, n_passes: int, pattern: str) -> None:
    model = tiny_model(backend=backend, pattern=pattern)
    model.neutral_pad = PAD
    memory = model.zero_memory(2).map(torch.randn_like)
    for a, b in zip(
        sleep(model, torch.full((2, L), PAD), memory, SleepConfig(L, n_passes)).states, memory.states, strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("eviction", ["hard", "sliding"])
@pytest.mark.parametrize("pattern", ["AGAG", "AHAH", "ADAD", "AJAJ"])
def test_pads_on_the_left_are_as_if_they_were_not_there(eviction, pattern: str) -> None:  # type: ignore[no-untyped-def]
    """5 pads and 3 tokens in one window, the same tokens alone in another, and what follows both."""
    model, config = tiny_model(vocab_size=3, pattern=pattern), SleepConfig(L, 2, eviction=eviction)
    model.neutral_pad = PAD
    tokens, later = torch.randint(2, (4, 3)), torch.randint(2, (4, L))
    padded = torch.cat((torch.full((4, L - 3), PAD), tokens), 1)
    start = zero_memory(model, 4, config)
    start = type(start)(tuple(torch.randn_like(s) for s in start.states), start.conv, start.kv, start.present)
    alone, behind_pads = (sleep(model, x, start, config) for x in (tokens, padded))
    torch.testing.assert_close(behind_pads.states, alone.states, rtol=1e-5, atol=1e-6)
    (h, _), (expected, _) = (wake(model, later, m, config) for m in (behind_pads, alone))
    torch.testing.assert_close(h, expected, rtol=1e-5, atol=1e-5)


def test_ordinary_pads_do_leave_a_trace() -> None:
    model = tiny_model()
    memory = model.zero_memory(2).map(torch.randn_like)
    after = sleep(model, torch.full((2, L), PAD), memory, SleepConfig(L, 1))
    assert not any(torch.allclose(a, b) for a, b in zip(after.states, memory.states, strict=True))


def test_depo_with_room_to_spare_gives_the_memory_of_depo_without() -> None:
    """The same cycles with 16 pads in front: a window of pads more, the same memory and answers."""
    tight = DepoConfig(pad="neutral").build()
    wide = DepoConfig(pad="neutral", context_tokens=32).build()
    model = tiny_model(vocab_size=len(tight.vocab))
    assert tight.neutral_pad == wide.neutral_pad == 0
    model.neutral_pad = tight.neutral_pad
    config = SleepConfig(16, 2)
    final = []
    for task in (tight, wide):
        batch: TaskBatch = task.batch(4, seed=0, position=0)
        windows = plan_windows(batch.labels, 16)
        *_, (_, h, memory) = run_window_loop(model, batch.tokens, windows, zero_memory(model, 4, config), config)
        final.append((h, memory.states))
    torch.testing.assert_close(final[0], final[1], rtol=1e-5, atol=1e-5)
