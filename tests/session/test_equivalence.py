"""Token by token plus sleep(N) is the window loop that models are trained in."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.session import SleepSession
from sleep_lightning.sleep import SleepConfig, Window, run_window_loop, zero_memory
from tests.conftest import tiny_model
from tests.model.styles import STYLES

L, VOCAB = 6, 11
LENGTHS = (L, L, 4, L, 5)  # one window is slept on before it is full, and the last is not slept on
CHUNKS = {"token by token": (1,), "pieces": (2, 1, 3), "at once": (99,)}
MODELS: dict[str, dict[str, Any]] = {
    "all rules": {"pattern": "GAHDJA"},
    "no convolution": {"pattern": "AGAG", "conv_size": 0},
    "one tap": {"pattern": "AHAD", "conv_size": 1},
    **STYLES,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "inject": {"pass_input": "inject", "loop_norm": True},
    "embed, convolution carried": {"pass_input": "embed", "carry_conv_state": True},
    "memory reset": {"reset_memory_between_passes": True},
    "mixers": {"looped": "mixers"},
    "adaptive": {"tolerance": 0.3},
}


def model_of(name: str, dtype: torch.dtype, **more: Any) -> HybridLM:
    return tiny_model(**{"vocab_size": VOCAB} | MODELS[name] | more).to(dtype)


def by_window_loop(model: HybridLM, tokens_BT: Tensor, config: SleepConfig) -> tuple[list[Memory], Tensor, list[int]]:
    """The memory behind every window, and the logits of the last."""
    stops = torch.tensor(LENGTHS).cumsum(0).tolist()
    windows = [Window(stop - n, stop, stop < sum(LENGTHS)) for n, stop in zip(LENGTHS, stops, strict=True)]
    memory = zero_memory(model, len(tokens_BT), config)
    with torch.no_grad():
        out = list(run_window_loop(model, tokens_BT, windows, memory, config))
        assert out[-1][1] is not None
        return [m for _, _, m in out], model.logits(out[-1][1]), stops


def compare(model: HybridLM, config: SleepConfig, chunks: Sequence[int], tolerance: float) -> None:
    tokens_BT = torch.randint(VOCAB, (1, sum(LENGTHS)))
    memories, logits, stops = by_window_loop(model, tokens_BT, config)
    session, at, sizes = SleepSession(model, config), 0, cycle(chunks)
    found = []
    for memory, stop in zip(memories, stops, strict=True):
        last = stop == stops[-1]
        while at < stop:
            n = min(next(sizes), stop - at)
            session.append(tokens_BT[0, at : at + n])
            at += n
            if last:
                found.append(session.next_logits())
        if session.window_fill:  # it was not full
            session.sleep(1 if last else None)
        for name, x in session.memory.named_tensors().items():
            torch.testing.assert_close(x, memory.named_tensors()[name], rtol=tolerance, atol=tolerance)
    expected = logits[0] if len(found) == LENGTHS[-1] else logits[0, -1:]
    torch.testing.assert_close(torch.stack(found)[-len(expected) :], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("eviction", ["hard", pytest.param("sliding", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("model", "options"),
    [("all rules", name) for name in OPTIONS] + [(name, "paper") for name in MODELS if name != "all rules"],
)
def test_every_rule_style_and_option(model: str, eviction: Any, options: str) -> None:
    """In float64, the whole stack and a part of it looped: to rounding."""
    lm = model_of(model, torch.float64)
    for loop, chunks in (("all", "token by token"), (f"1/{lm.n_blocks - 2}/1", "pieces")):
        compare(lm, SleepConfig(L, 3, eviction=eviction, loop=loop, **OPTIONS[options]), CHUNKS[chunks], 1e-10)


@pytest.mark.parametrize("loop", ["all", "1/4/1", "0/5/1", "2/4/0", "0/1/5"])
@pytest.mark.parametrize("eviction", ["hard", pytest.param("sliding", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("n_passes", "chunks"), [(1, "token by token"), (2, "pieces"), (4, "at once")])
def test_every_loop_range_and_fill_in_fp32(chunks: str, n_passes: int, eviction: Any, loop: str) -> None:
    """On a model as ``Experiment`` builds it: what passes add is scaled by 1 / N, or rounding errors would grow."""
    config = SleepConfig(L, n_passes, eviction=eviction, loop=loop, carry_conv_state=n_passes == 2)
    compare(model_of("all rules", torch.float32, residual_scale=1 / n_passes), config, CHUNKS[chunks], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("eviction", ["hard", "sliding"])
def test_neutral_pads_leave_no_trace(eviction: Any) -> None:
    torch.manual_seed(0)
    model = model_of("all rules", torch.float64)
    model.neutral_pad = 0
    for chunks in CHUNKS.values():
        compare(model, SleepConfig(L, 3, eviction=eviction), chunks, 1e-10)


def test_the_comparison_can_fail() -> None:
    """A model whose coda writes twice, or whose loop starts from the wrong memory, is found out."""
    model = model_of("all rules", torch.float64)
    tokens_BT = torch.randint(VOCAB, (1, sum(LENGTHS)))
    first = [by_window_loop(model, tokens_BT, SleepConfig(L, n, loop="1/4/1"))[0][0].states for n in (2, 3)]
    assert all((a - b).abs().max() > 1e-6 for a, b in zip(first[0][1:], first[1][1:], strict=True))


def test_a_long_window_takes_the_path_of_long_windows() -> None:
    """Beyond ``SHORT`` tokens attention is computed otherwise."""
    T = 150
    model = tiny_model(VOCAB, pattern="AG", kv_heads=1, attention_windows=[40]).double()
    tokens_BT = torch.randint(VOCAB, (1, T))
    config = SleepConfig(T, 2)
    memory = zero_memory(model, 1, config)
    with torch.no_grad():
        *_, (_, _, expected) = run_window_loop(model, tokens_BT, [Window(0, T, True)], memory, config)
    for pieces in ([T], [140, 10], [1, 149]):
        session, at = SleepSession(model, config), 0
        for n in pieces:
            session.append(tokens_BT[0, at : at + n])
            at += n
        torch.testing.assert_close(session.memory.states, expected.states, rtol=1e-10, atol=1e-10)
