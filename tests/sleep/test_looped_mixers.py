"""``sleep.looped=mixers``: the MLPs run in the first pass, the mixers in all."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.model.attention import Attention
from sleep_lightning.ops.cpp import build
from sleep_lightning.sleep import Checkpointing, SleepConfig, plan_passes, plan_windows, run_window_loop, sleep
from sleep_lightning.sleep.counted_flops import counted_pass_flops
from sleep_lightning.sleep.schedule import check_looped
from sleep_lightning.training.gradients import accumulate_gradients
from tests.conftest import tiny_batch, tiny_model
from tests.model.own_model import own_model

T = 6


def by_hand(model: HybridLM, tokens: Tensor, memory: Memory, N: int) -> Memory:
    """Passes written out block by block."""
    h, states = model.embed(tokens), list(memory.states)
    for n in range(1, N + 1):
        i = 0
        for block in model.stack:
            x = block.mixer_norm(h)
            if isinstance(block.mixer, Attention):
                y = block.mixer(x)
            else:
                y, states[i], _ = block.mixer(x, states[i])
                i += 1
            h = h + y
            if n == 1:
                h = h + block.mlp(block.mlp_norm(h))
    return Memory(tuple(states))


@pytest.mark.parametrize("N", [1, 2, 4])
@pytest.mark.parametrize("pattern", ["AGAG", "GAGA", "AJH"])
def test_memory_is_that_of_the_passes_written_out(pattern: str, N: int) -> None:
    model = tiny_model(pattern=pattern).double()
    tokens = torch.arange(T).remainder(3)[None].repeat(2, 1)
    memory = model.zero_memory(2).map(Tensor.double)
    slept = sleep(model, tokens, memory, SleepConfig(T, N, looped="mixers"))
    expected = by_hand(model, tokens, memory, N)
    for a, b in zip(slept.states, expected.states, strict=True):
        torch.testing.assert_close(a, b)


def test_one_pass_is_the_plain_hybrid_and_two_are_not_two_whole_ones() -> None:
    model, tokens = tiny_model(), torch.arange(T).remainder(3)[None]

    def slept(N: int, looped: Any) -> Tensor:
        return sleep(model, tokens, model.zero_memory(1), SleepConfig(T, N, looped=looped)).states[0]

    assert slept(1, "mixers").equal(slept(1, "blocks"))
    assert not torch.allclose(slept(2, "mixers"), slept(2, "blocks"))


@pytest.mark.parametrize("policy", ["mlp", "pass", "window"])
def test_recomputation_changes_no_gradient(policy: Checkpointing) -> None:
    gradients = []
    for each in ("none", policy):
        model = tiny_model()
        accumulate_gradients(model, tiny_batch(ring=T), SleepConfig(T, 3, looped="mixers"), policy=each)  # type: ignore[arg-type]
        gradients.append([torch.zeros(()) if p.grad is None else p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_flops_said_are_those_dispatched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    model, tokens = tiny_model(), 24
    for writes_only in (False, True):
        blocks = range(model.writers()[-1] + 1 if writes_only else model.n_blocks)
        said = model.pass_flops(tokens, blocks, writes_only=writes_only, mlps=False)
        assert said is not None
        counted = counted_pass_flops(model, tokens, blocks, writes_only, 0, mlps=False)
        assert said.forward.total() == pytest.approx(counted.forward.total(), rel=0.1)
        assert said.backward.total() == pytest.approx(counted.backward.total(), rel=0.1)


def test_only_passes_that_sleep_leave_them_out() -> None:
    model, config = tiny_model(), SleepConfig(T, 3, looped="mixers", wake_passes=2)
    assert [p.mlps for p in plan_passes(model, config, sleeps=True)] == [True, False, False]
    assert [p.mlps for p in plan_passes(model, config, sleeps=False)] == [True, True]
    batch = tiny_batch(ring=T)
    assert any(window.sleeps for window in plan_windows(batch.labels, T))


def test_a_model_that_cannot_is_refused() -> None:
    check_looped(tiny_model(), SleepConfig(T, 2, looped="mixers"))
    with pytest.raises(ValueError, match=r"sleep\.looped=mixers .*OwnModel\.blocks has no mlps; use blocks"):
        check_looped(own_model(), SleepConfig(T, 2, looped="mixers"))


def test_every_executor_refuses_it_in_one_sentence() -> None:
    model, config, batch = own_model(), SleepConfig(T, 2, looped="mixers"), tiny_batch(ring=T)
    windows, memory = plan_windows(batch.labels, T), model.zero_memory(len(batch.tokens))
    for run in (
        lambda: accumulate_gradients(model, batch, config),
        lambda: list(run_window_loop(model, batch.tokens, windows, memory, config)),
        lambda: sleep(model, batch.tokens[:, :T], memory, config),
    ):
        with pytest.raises(ValueError, match=r"sleep\.looped=mixers .*OwnModel\.blocks has no mlps; use blocks"):
            run()
    with pytest.raises(ValueError, match=r"training\.checkpointing=mlp .*OwnModel\.blocks has no recompute_mlp"):
        accumulate_gradients(model, batch, SleepConfig(T, 2), policy="mlp")
