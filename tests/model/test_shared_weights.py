"""Weights laid out once for a step: the same step, in every pattern and way to walk."""

import pytest
import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.ops import SharedWeight
from sleep_lightning.ops.cpp import build
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.training.gradients import accumulate_gradients, predict
from tests.conftest import tiny_batch, tiny_model

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason="the C++ kernels are not available")

L = 6


def gradients(model: HybridLM, sleep: SleepConfig, *, bf16: bool = False, **options: object) -> list[Tensor]:
    """The loss and the gradients of a batch in which there are more tokens than words."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = accumulate_gradients(model, tiny_batch(ring=L, strings=3), sleep, **options)  # type: ignore[arg-type]
    return [loss.double(), *(torch.zeros(1) if p.grad is None else p.grad.double() for p in model.parameters())]


def apart(actual: list[Tensor], exact: list[Tensor]) -> float:
    """Of the whole gradient; single ones may be all rounding."""
    difference = sum(float((a - e).square().sum()) for a, e in zip(actual, exact, strict=True))
    return (difference / sum(float(e.square().sum()) for e in exact)) ** 0.5


def apart_from_float64(config: SleepConfig, walk: dict[str, object], **model: object) -> tuple[float, float]:
    """With weights shared; and without, at the worst of three changes of the weights' last bit."""
    exact = gradients(tiny_model(**model).double(), config, **(walk | {"policy": "none", "bf16": False}))  # type: ignore[arg-type]
    plain = []
    for _ in range(3):
        nudged = tiny_model(**model)
        nudged.shares_weights = False
        with torch.no_grad():
            for p in nudged.parameters():
                p.mul_(1 + 1e-7 * torch.randn_like(p))
        plain.append(apart(gradients(nudged, config, **walk), exact))
    return apart(gradients(tiny_model(**model), config, **walk), exact), max(plain)


def assert_same(config: SleepConfig, walk: dict[str, object], **model: object) -> None:
    ours, plain = apart_from_float64(config, walk, **model)
    assert ours < 5 * plain + 1e-6 and plain < 1e-2


WALKS: dict[str, dict[str, object]] = {
    "windows": {"executor": "windows"},
    "layer by layer, where it is legal": {},
    "truncated": {"tbptt_windows": 2},
    "MLPs again": {"policy": "mlp"},
    "a window again": {"policy": "window"},
    "a pass again": {"policy": "pass"},
}
SLEEPS = {
    "N=1": SleepConfig(L, 1),
    "N=3": SleepConfig(L, 3),
    "embed": SleepConfig(L, 3, pass_input="embed"),
    "inject": SleepConfig(L, 2, pass_input="inject", loop_norm=True),
    "prelude": SleepConfig(L, 2, loop="1/1/1"),
    "convolution carried": SleepConfig(L, 2, carry_conv_state=True),
    "sliding": SleepConfig(L, 2, eviction="sliding"),
    "two of three": SleepConfig(L, 3, grad_passes=2),
    "awake": SleepConfig(L, 2, wake_passes=2),
}


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("sleep", SLEEPS)
@pytest.mark.parametrize("pattern", ["AGA", "GHA", "HDJ"])
def test_a_step_is_the_same(pattern: str, sleep: str, walk: str) -> None:
    """As near to the definition in float64, where nothing is shared, as without: rounding grows from pass to pass."""
    assert_same(SLEEPS[sleep], WALKS[walk], pattern=pattern)


@pytest.mark.parametrize("overrides", [{"tie_embeddings": False}, {"conv_size": 0}, {"summary_tokens": 2}])
def test_in_other_models(overrides: dict[str, object]) -> None:
    assert_same(SleepConfig(L, 2), {}, **overrides)


def test_bf16_is_no_further_off_than_without() -> None:
    ours, plain = apart_from_float64(SleepConfig(L, 1), {"bf16": True})
    assert ours < 2 * plain < 0.1


def test_frozen_weights_get_no_gradient() -> None:
    model, whole = tiny_model(), tiny_model()
    for block in model.stack[2:]:
        block.requires_grad_(False)
    gradients(model, SleepConfig(L, 2))
    gradients(whole, SleepConfig(L, 2))
    for p, q in zip(model.parameters(), whole.parameters(), strict=True):
        if p.requires_grad:
            torch.testing.assert_close(p.grad, q.grad)
        else:
            assert p.grad is None


def test_it_runs_where_it_says_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SharedWeight] = []
    monkeypatch.setattr(
        SharedWeight, "product", lambda *a, f=SharedWeight.product, **k: (made.append(a[0]), f(*a, **k))[1]
    )
    gradients(tiny_model(), SleepConfig(L, 1))
    assert len(set(made)) == 8 - 1  # two of each block, of which the first one is looked up
    made.clear()
    for model in (tiny_model().double(), tiny_model()):
        model.shares_weights = model.embedding.weight.dtype == torch.float64
        gradients(model, SleepConfig(L, 2))
    predict(tiny_model(), tiny_batch(ring=L, strings=3), SleepConfig(L, 2))
    monkeypatch.setenv(build.SWITCH, "0")
    gradients(tiny_model(), SleepConfig(L, 2))
    assert not made


def test_words_are_projected_once_where_tokens_are_more() -> None:
    model, tokens = tiny_model(), torch.randint(3, (4, L))
    zero = model.zero_memory(4)
    expected, memory = model.blocks(model.embed(tokens), zero)
    for n, looked_up in ((5, False), (6, True)):
        with model.shared_weights(n):
            assert (model.stack[0].shared.table_VC is not None) is looked_up  # type: ignore[union-attr]
            h, after = model.blocks(model.embed(tokens), zero, tokens=tokens)
        torch.testing.assert_close(h, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(after.states, memory.states, rtol=1e-5, atol=1e-5)


def test_it_ends_with_its_block_also_in_an_error() -> None:
    model = tiny_model()
    with model.shared_weights(100):
        assert model.shared_bytes > 0
        with model.shared_weights(100):  # is the same one
            pass
        assert model.stack[0].shared is not None

    def fail() -> None:
        with model.shared_weights(100):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(block.shared is None for block in model.stack) and model.shared_bytes == 0


def test_a_pass_that_only_writes() -> None:
    model, tokens = tiny_model(), torch.randint(3, (2, L))
    start: Memory = model.zero_memory(2).map(torch.randn_like)
    h = model.embed(tokens)
    with model.shared_weights(0):
        written, (_, expected) = model.write(h, start), model.blocks(h, start)
    torch.testing.assert_close(written.states, expected.states)
