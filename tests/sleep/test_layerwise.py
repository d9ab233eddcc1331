"""The executor over all windows against the window loop, which is the definition."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.sleep import IGNORE, SleepConfig, Window, plan_windows, run_window_loop
from sleep_lightning.sleep.layerwise import run_layerwise, why_not_layerwise
from sleep_lightning.training import gradients
from sleep_lightning.training.gradients import run_windows
from tests.conftest import tiny_model

L = 6


def labels(kind: str, T: int) -> Tensor:
    result = torch.zeros(3, T, dtype=torch.int64)
    asleep = {
        "answer last": slice(0, 3 * L),
        "all asleep": slice(None),
        "all awake": slice(0, 0),
        "mixed": slice(L, 2 * L),
    }
    result[:, asleep[kind]] = IGNORE
    return result


def outcome(model: HybridLM, hidden: dict[int, Tensor], memory: Memory) -> list[Tensor]:
    """Values, final states, and the gradient of a fixed projection of both in every parameter."""
    generator = torch.Generator().manual_seed(3)
    outputs = [*hidden.values(), *memory.states]
    loss = sum(((x * torch.randn(x.shape, generator=generator).to(x)).sum() for x in outputs), torch.zeros(()))
    if not loss.requires_grad:  # a model without memory that only slept
        return [x.detach() for x in outputs]
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return [*(x.detach() for x in outputs), *(torch.zeros(()) if g is None else g for g in gradients)]


@pytest.mark.parametrize("pattern", ["AGAG", "G", "GA", "AAGG", "A", "AHAH", "H", "DAD", "AJAJ", "JA", "GAHDJ"])
@pytest.mark.parametrize(("n_passes", "pass_input"), [(1, "hidden"), (3, "embed")])
@pytest.mark.parametrize("kind", ["answer last", "all asleep", "all awake", "mixed"])
@pytest.mark.parametrize("T", [4 * L, 3 * L + 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_the_window_loop(
    pattern: str, n_passes: int, pass_input: str, kind: str, T: int, dtype: torch.dtype
) -> None:
    """To rounding in float64, which is the proof; in float32 to what other orders of the same sums differ by."""
    model = tiny_model(pattern=pattern).to(dtype)
    config = SleepConfig(L, n_passes, pass_input=pass_input)  # type: ignore[arg-type]
    assert why_not_layerwise(model, config) is None
    tokens, windows = torch.randint(2, (3, T)), plan_windows(labels(kind, T), L)
    start = model.zero_memory(3).map(torch.randn_like)
    walked = list(run_window_loop(model, tokens, windows, start, config))
    hidden = {i: h for i, (_, h, _) in enumerate(walked) if h is not None}
    expected = outcome(model, hidden, walked[-1][2])
    actual_hidden, actual_memory = run_layerwise(model, tokens, windows, start, config)
    assert list(actual_hidden) == list(hidden)
    largest = max((float(x.norm()) for x in expected), default=0.0)
    for a, b in zip(outcome(model, actual_hidden, actual_memory), expected, strict=True):
        assert (a - b).norm() <= (1e-13 if dtype == torch.float64 else 1e-5) * largest


@pytest.mark.parametrize("kind", ["answer last", "all awake", "mixed"])
@pytest.mark.parametrize("pattern", ["AGAG", "GAH"])
def test_answers_are_run_at_once_between_windows_that_sleep(
    pattern: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the paper's feedback, too; to rounding in float64, with every gradient."""
    model, config = tiny_model(pattern=pattern).double(), SleepConfig(L, 3)
    tokens, windows = torch.randint(2, (3, 4 * L + 2)), plan_windows(labels(kind, 4 * L + 2), L)
    start = model.zero_memory(3).map(torch.randn_like)
    sizes: list[int] = []

    def spied(model: HybridLM, tokens: Tensor, run: list[Window], *rest: Any) -> tuple[dict[int, Tensor], Memory]:
        sizes.append(len(run))
        return run_layerwise(model, tokens, run, *rest)

    monkeypatch.setattr(gradients, "run_layerwise", spied)
    results = []
    for executor in ("auto", "windows"):
        awake, memory = run_windows(model, tokens, windows, start, config, executor=executor)  # type: ignore[arg-type]
        assert [window for window, _ in awake] == [window for window in windows if not window.sleeps]
        results.append(outcome(model, dict(enumerate(h for _, h in awake)), memory))
    assert sizes == {"answer last": [2], "all awake": [5], "mixed": [3]}[kind]
    largest = max(float(x.norm()) for x in results[1])
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= 1e-13 * largest


def test_what_must_be_sequential_is_named() -> None:
    model = tiny_model()
    assert "feeds every pass" in str(why_not_layerwise(model, SleepConfig(L, 2)))
    assert "feeds every pass" in str(why_not_layerwise(model, SleepConfig(L, 2, pass_input="inject")))
    assert "same memory" in str(
        why_not_layerwise(model, SleepConfig(L, 2, pass_input="embed", reset_memory_between_passes=True))
    )
    assert "grad_passes" in str(why_not_layerwise(model, SleepConfig(L, 2, pass_input="embed", grad_passes=1)))
    assert "convolution" in str(why_not_layerwise(model, SleepConfig(L, 1, carry_conv_state=True)))


def test_starts_anywhere_in_a_batch() -> None:
    model, tokens = tiny_model(), torch.randint(2, (2, 4 * L))
    windows = [Window(2 * L, 3 * L, True), Window(3 * L, 4 * L, False)]
    config, start = SleepConfig(L, 1), model.zero_memory(2).map(torch.randn_like)
    *_, (_, h, memory) = run_window_loop(model, tokens, windows, start, config)
    hidden, actual = run_layerwise(model, tokens, windows, start, config)
    torch.testing.assert_close(hidden[1], h, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(actual.states, memory.states, rtol=1e-5, atol=1e-5)
