"""The executor over all windows against the window loop, which is the definition."""

from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory, ModelConfig
from sleep_lightning.model.gated_delta_net import GatedDeltaNet
from sleep_lightning.sleep import (
    IGNORE,
    PlannedWindow,
    SleepConfig,
    Window,
    make_schedule,
    plan_windows,
    run_window_loop,
)
from sleep_lightning.sleep.layerwise import is_layerwise_legal, not_known_legal, run_layerwise
from sleep_lightning.training import gradients
from sleep_lightning.training.gradients import run_windows
from tests.conftest import tiny_model
from tests.model.styles import STYLES

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


def planned(model: HybridLM, windows: list[Window], config: SleepConfig) -> list[PlannedWindow]:
    [segment] = make_schedule(model, windows, config)
    return segment


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
    assert is_layerwise_legal(model, config)
    tokens, windows = torch.randint(2, (3, T)), plan_windows(labels(kind, T), L)
    start = model.zero_memory(3).map(torch.randn_like)
    steps = list(run_window_loop(model, tokens, windows, start, config))
    hidden = {i: h for i, (_, h, _) in enumerate(steps) if h is not None}
    expected = outcome(model, hidden, steps[-1][2])
    actual_hidden, actual_memory = run_layerwise(model, tokens, planned(model, windows, config), start)
    assert list(actual_hidden) == list(hidden)
    largest = max((float(x.norm()) for x in expected), default=0.0)
    for a, b in zip(outcome(model, actual_hidden, actual_memory), expected, strict=True):
        assert (a - b).norm() <= (1e-13 if dtype == torch.float64 else 1e-5) * largest


def assert_equal_to_the_window_loop(model: HybridLM, config: SleepConfig, T: int) -> None:
    """Answers last, in float64."""
    tokens, windows = torch.randint(2, (3, T)), plan_windows(labels("answer last", T), L)
    start = model.zero_memory(3).map(torch.randn_like)
    steps = list(run_window_loop(model, tokens, windows, start, config))
    expected = outcome(model, {i: h for i, (_, h, _) in enumerate(steps) if h is not None}, steps[-1][2])
    actual = outcome(model, *run_layerwise(model, tokens, planned(model, windows, config), start))
    for a, b in zip(actual, expected, strict=True):
        assert (a - b).norm() <= 1e-13 * max(float(x.norm()) for x in expected)


@pytest.mark.parametrize(("n_passes", "pass_input"), [(1, "hidden"), (3, "embed")])
@pytest.mark.parametrize("style", STYLES)
def test_pretrained_blocks_are_equal_too(style: str, n_passes: int, pass_input: str) -> None:
    model = tiny_model(**STYLES[style]).double()
    config = SleepConfig(L, n_passes, pass_input=pass_input)  # type: ignore[arg-type]
    assert is_layerwise_legal(model, config)
    assert_equal_to_the_window_loop(model, config, 3 * L + 2)


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_residual_scales_are_equal_too(scale: float) -> None:
    model, config = tiny_model(residual_scale=scale).double(), SleepConfig(L, 3, pass_input="embed")
    assert_equal_to_the_window_loop(model, config, 4 * L)
    block, h = model.layers[0], torch.randn(3, L, model.config.d_model, dtype=torch.float64)
    added = block.mixer(block.mixer_norm(h))  # type: ignore[operator]
    assert torch.allclose(block.attend(h), h + scale * added)  # type: ignore[operator]


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

    def spied(model: HybridLM, tokens: Tensor, run: list[Any], *rest: Any) -> tuple[dict[int, Tensor], Memory]:
        sizes.append(len(run))
        return run_layerwise(model, tokens, run, *rest)

    monkeypatch.setattr(gradients, "run_layerwise", spied)
    results = []
    for layerwise in (True, False):
        awake, memory = run_windows(
            model, tokens, planned(model, windows, config), start, config, may_run_layerwise=layerwise
        )
        assert [window for window, _ in awake] == [window for window in windows if not window.sleeps]
        results.append(outcome(model, dict(enumerate(h for _, h in awake)), memory))
    assert sizes == {"answer last": [2], "all awake": [5], "mixed": [3]}[kind]
    largest = max(float(x.norm()) for x in results[1])
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= 1e-13 * largest


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"n_passes": 2}, "sleep.pass_input=hidden"),
        ({"n_passes": 2, "pass_input": "inject"}, "sleep.pass_input=inject"),
        ({"n_passes": 2, "pass_input": "embed", "loop": "1/2/1"}, "sleep.loop=1/2/1"),
        (
            {"n_passes": 2, "pass_input": "embed", "reset_memory_between_passes": True},
            "sleep.reset_memory_between_passes=True",
        ),
        ({"n_passes": 2, "pass_input": "embed", "grad_passes": 1}, "sleep.grad_passes=1"),
        ({"carry_conv_state": True}, "sleep.carry_conv_state=True"),
        ({"eviction": "sliding"}, "sleep.eviction=sliding"),
        ({"wake_passes": 2}, "sleep.wake_passes=2"),
        ({"retrieved_windows": 1}, "sleep.retrieved_windows=1"),
        ({"n_passes": 2, "pass_input": "embed", "grad_passes": 2}, None),
        ({"loop": "1/2/1", "pass_input": "inject", "reset_memory_between_passes": True}, None),
    ],
)
def test_what_is_not_known_to_be_legal_is_named(overrides: dict[str, Any], named: str | None) -> None:
    assert not_known_legal(tiny_model(), SleepConfig(**({"window_size": L} | overrides))) == named


def test_models_are_judged_too() -> None:
    config = SleepConfig(L)
    assert not_known_legal(tiny_model(summary_tokens=2), config) == "model.summary_tokens=2"
    padded = tiny_model()
    padded.neutral_pad = 0
    assert not_known_legal(padded, config) == "neutral_pad=0"
    other_rule = tiny_model()
    other_rule.stack[1].mixer.__class__ = type("OwnRule", (GatedDeltaNet,), {})
    assert not_known_legal(other_rule, config) == "OwnRule"
    other_model = tiny_model()
    other_model.__class__ = type("OwnModel", (HybridLM,), {})
    assert not_known_legal(other_model, config) == "OwnModel"


def test_a_new_option_is_refused_until_it_is_on_the_list() -> None:
    """At its default it changes nothing; at any other value nobody has proved that the order does not matter."""

    @dataclass
    class NewerSleep(SleepConfig):
        dreams: int = 0

    @dataclass
    class NewerModel(ModelConfig):
        experts: int = 1

    model = tiny_model()
    assert is_layerwise_legal(model, NewerSleep(L))
    assert not_known_legal(model, NewerSleep(L, dreams=3)) == "sleep.dreams=3"
    values = {field.name: getattr(model.config, field.name) for field in fields(model.config)}
    model.config = NewerModel(**values)
    assert is_layerwise_legal(model, SleepConfig(L))
    model.config = NewerModel(**values, experts=4)
    assert not_known_legal(model, SleepConfig(L)) == "model.experts=4"


def test_starts_anywhere_in_a_batch() -> None:
    model, tokens = tiny_model(), torch.randint(2, (2, 4 * L))
    windows = [Window(2 * L, 3 * L, True), Window(3 * L, 4 * L, False)]
    config, start = SleepConfig(L, 1), model.zero_memory(2).map(torch.randn_like)
    *_, (_, h, memory) = run_window_loop(model, tokens, windows, start, config)
    hidden, actual = run_layerwise(model, tokens, planned(model, windows, config), start)
    torch.testing.assert_close(hidden[1], h, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(actual.states, memory.states, rtol=1e-5, atol=1e-5)
