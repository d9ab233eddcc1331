"""Properties of Algorithm 1 that hold whatever executes it."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import HybridLM
from sleep_lightning.model.attention import Attention
from sleep_lightning.sleep import (
    IGNORE,
    PassRecord,
    SleepConfig,
    Window,
    plan_windows,
    run_window_loop,
    sleep,
    wake,
    zero_memory,
)
from tests.conftest import tiny_batch, tiny_model
from tests.precision import fp32_matmul

L = 6


def rotate(x_BTHD: Tensor) -> Tensor:
    """RoPE as complex numbers turning with the position, base 10000."""
    T, _, D = x_BTHD.shape[1:]
    angle_TD = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(0, D, 2) / D)
    x1, x2 = x_BTHD.chunk(2, -1)
    turned = torch.complex(x1, x2) * torch.polar(torch.ones_like(angle_TD), angle_TD)[:, None]
    return torch.cat((turned.real, turned.imag), -1)


def plain_hybrid(model: HybridLM, tokens_BT: Tensor, eviction: str = "hard") -> tuple[Tensor, tuple[Tensor, ...]]:
    """The whole sequence at once: causal attention at running positions, in blocks of L (hard) or over the last L
    tokens (sliding), and one uninterrupted scan."""
    T = tokens_BT.shape[1]
    position = torch.arange(T)
    same_block = position[:, None] // L == position // L
    recent = position[:, None] - position < L
    mask_TT = (position[:, None] >= position) & (same_block if eviction == "hard" else recent)
    h, states = model.embed(tokens_BT), []
    for block in model.layers:
        x = block.mixer_norm(h)
        if isinstance(block.mixer, Attention):
            heads = (len(tokens_BT), T, block.mixer.n_heads, -1)
            q, k, v = (y.view(heads) for y in block.mixer.in_proj(x).chunk(3, -1))
            if block.mixer.q_norm is not None and block.mixer.k_norm is not None:
                q, k = (
                    F.rms_norm(y, n.weight.shape, n.weight, n.eps)
                    for y, n in ((q, block.mixer.q_norm), (k, block.mixer.k_norm))
                )
            q, k = rotate(q), rotate(k)
            o = F.scaled_dot_product_attention(*(y.transpose(1, 2) for y in (q, k, v)), attn_mask=mask_TT)
            h = h + block.mixer.out_proj(o.transpose(1, 2).flatten(2))
        else:
            out = block.mixer(x, block.mixer.zero_state(len(tokens_BT)))
            states.append(out.state)
            h = h + out.y
        h = block.feed_forward(h)
    return h, tuple(states)


PATTERNS = [("AGAG", 0), ("AGAG", 4), ("GAGA", 4), ("AHAH", 0), ("AHAH", 4), ("ADAD", 4), ("AJAJ", 4), ("HAJDG", 4)]


@pytest.fixture(autouse=True)
def _exact_matmul() -> Iterator[None]:
    """Whatever a test before has chosen for the process."""
    with fp32_matmul("highest"):
        yield


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 5e-6)])  # RoPE stays fp32
@pytest.mark.parametrize("eviction", ["hard", "sliding"])
@pytest.mark.parametrize(("pattern", "conv_size"), PATTERNS)
def test_one_pass_is_the_plain_hybrid(
    conv_size: int, pattern: str, eviction: Literal["hard", "sliding"], dtype: torch.dtype, tolerance: float
) -> None:
    """N = 1 == vanilla hybrid, values and every gradient (conv off, or carried over windows)."""
    batch, model = tiny_batch(ring=L), tiny_model(conv_size=conv_size, pattern=pattern).to(dtype)
    config = SleepConfig(window_size=L, n_passes=1, carry_conv_state=conv_size > 0, eviction=eviction)
    memory = zero_memory(model, len(batch.tokens), config)
    windows = plan_windows(batch.labels, L)
    *_, (window, h, final) = run_window_loop(model, batch.tokens, windows, memory, config)
    expected_h, expected_states = plain_hybrid(model, batch.tokens, eviction)
    assert h is not None
    torch.testing.assert_close(h, expected_h[:, window.start :], rtol=tolerance, atol=tolerance)
    for a, b in zip(final.states, expected_states, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    weight = torch.randn_like(h)
    parameters = list(model.layers.parameters())
    gradients = torch.autograd.grad((h * weight).sum(), parameters)
    expected = torch.autograd.grad((expected_h[:, window.start :] * weight).sum(), parameters)
    for a, b in zip(gradients, expected, strict=True):
        assert (a - b).norm() <= 3 * tolerance * (b.norm() + 0.1)  # sums in another order, over five blocks


def test_sleep_is_the_algorithm_written_out() -> None:
    model, tokens = tiny_model(), torch.randint(2, (3, L))
    memory = expected = model.zero_memory(3).map(torch.randn_like)
    h = model.embed(tokens)
    for _ in range(3):
        h, expected = model.blocks(h, expected)
    for a, b in zip(sleep(model, tokens, memory, SleepConfig(L, 3)).states, expected.states, strict=True):
        torch.testing.assert_close(a, b)


def test_only_windows_without_labels_sleep_and_all_write() -> None:
    batch, model = tiny_batch(ring=L), tiny_model()
    windows = plan_windows(batch.labels, L)
    assert windows == [Window(0, 6, True), Window(6, 12, True), Window(12, 18, True), Window(18, 21, False)]
    seen: list[tuple[int, int]] = []
    previous = model.zero_memory(len(batch.tokens))
    steps = run_window_loop(
        model, batch.tokens, windows, previous, SleepConfig(L, 3), observe=lambda w, r: seen.append((w.start, r.n))
    )
    for window, h, memory in steps:
        assert (h is None) == window.sleeps
        assert all(not torch.equal(a, b) for a, b in zip(memory.states, previous.states, strict=True))
        previous = memory
    assert seen == [(start, n) for start in (0, 6, 12) for n in (1, 2, 3)]


def test_rows_that_disagree_about_labels_are_refused() -> None:
    labels = torch.full((2, 12), IGNORE)
    labels[0, 8] = 1
    with pytest.raises(ValueError, match=r"tokens 6:12 have labels in 1 of 2 rows"):
        plan_windows(labels, 6)


def test_rows_that_are_done_do_not_hold_up_the_others() -> None:
    labels = torch.full((2, 24), IGNORE)
    labels[0, [8, 13]] = labels[1, 9] = 1
    assert [w.sleeps for w in plan_windows(labels, 6)] == [True, False, False, False]  # nothing is asked of the last


def test_gradient_reaches_pass_one_only_through_memory() -> None:
    """Cut the memory between sleep and answer and nothing is left; keep it and pass 1 has gradient."""
    batch, model, config = tiny_batch(ring=L), tiny_model(), SleepConfig(L, 2)
    windows = plan_windows(batch.labels, L)

    def pass_one_gradient(cut: bool) -> list[Tensor | None]:
        inputs: list[Tensor] = []

        def observe(window: Window, record: PassRecord) -> None:
            if record.n == 1:
                inputs.append(record.h_in)

        def at_boundary(i: int, memory):  # type: ignore[no-untyped-def]
            return memory.detach() if cut else memory

        memory = model.zero_memory(len(batch.tokens))
        *_, (_, h, _) = run_window_loop(
            model, batch.tokens, windows, memory, config, observe=observe, at_boundary=at_boundary
        )
        assert h is not None
        return list(torch.autograd.grad(model.logits(h).sum(), inputs, allow_unused=True))

    assert all(g is not None and g.abs().max() > 0 for g in pass_one_gradient(cut=False))
    assert all(g is None for g in pass_one_gradient(cut=True))


def test_memory_is_carried_over_passes_unless_reset() -> None:
    model, tokens = tiny_model(), torch.randint(2, (2, L))
    start = model.zero_memory(2).map(torch.randn_like)
    for reset in (False, True):
        records: list[PassRecord] = []
        config = SleepConfig(L, 3, reset_memory_between_passes=reset)
        sleep(model, tokens, start, config, observe=records.append)
        assert [r.n for r in records] == [1, 2, 3]
        for before, after in pairwise(records):
            assert after.memory_in is (start if reset else before.memory_out)


@pytest.mark.parametrize(
    ("pass_input", "loop_norm"), [("hidden", True), ("embed", False), ("inject", False), ("inject", True)]
)
def test_pass_inputs(pass_input: str, loop_norm: bool) -> None:
    model, tokens = tiny_model(), torch.randint(2, (2, L))
    records: list[PassRecord] = []
    config = SleepConfig(L, 2, pass_input=pass_input, loop_norm=loop_norm)  # type: ignore[arg-type]
    sleep(model, tokens, model.zero_memory(2), config, observe=records.append)
    embedded, h = model.embed(tokens), records[0].h_out
    assert h is not None
    h = model.norm(h) if loop_norm else h
    expected = {"hidden": h, "embed": embedded, "inject": h + embedded}[pass_input]
    torch.testing.assert_close(records[1].h_in, expected)


def test_grad_passes_keeps_only_the_last() -> None:
    model, tokens = tiny_model(), torch.randint(2, (2, L))
    records: list[PassRecord] = []
    sleep(model, tokens, model.zero_memory(2), SleepConfig(L, 3, grad_passes=1), observe=records.append)
    assert [r.memory_out.states[0].requires_grad for r in records] == [False, False, True]
    full = sleep(model, tokens, model.zero_memory(2), SleepConfig(L, 3))
    torch.testing.assert_close(records[-1].memory_out.states, full.states)


@pytest.mark.parametrize("overrides", [{}, {"eviction": "sliding"}, {"loop": "2/2/0"}])
def test_truncated_sleep_lets_no_gradient_cross_windows(overrides: dict[str, object]) -> None:
    """Neither through states, nor keys and values, nor the prelude; the coda's and the last passes' own is kept."""
    model, tokens = tiny_model(), torch.randint(2, (2, L))
    for grad_passes, crosses in ((None, True), (1, False)):
        config = SleepConfig(L, 2, grad_passes=grad_passes, **overrides)  # type: ignore[arg-type]
        start = zero_memory(model, 2, config).map(lambda x: torch.randn_like(x).requires_grad_())
        memory = sleep(model, tokens, start, config)
        loss = torch.stack([x.square().sum() for x in (*memory.states, *memory.kv)]).sum()
        inputs = [*start.states, *start.kv]
        gradients = torch.autograd.grad(loss, [*inputs, model.stack[-1].mixer.in_proj.weight], allow_unused=True)
        assert any(g is not None for g in gradients[:-1]) == crosses
        assert gradients[-1] is not None


@pytest.mark.parametrize(("pattern", "cached_tokens"), [("GG", 0), ("AGAG", L - 1)])
def test_streaming_tokens_equals_the_window(pattern: str, cached_tokens: int) -> None:
    """Token by token equals one wake pass: without attention, or with its keys and values carried."""
    model, tokens = tiny_model(pattern=pattern), torch.randint(2, (2, L))
    memory = model.zero_memory(2, carry_conv_state=True, cached_tokens=cached_tokens)
    h, expected = wake(model, tokens, memory)
    for t in range(L):
        h_t, memory = wake(model, tokens[:, t : t + 1], memory)
        torch.testing.assert_close(h_t, h[:, t : t + 1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(memory.states, expected.states, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"window_size": 1}, r"sleep\.window_size=1 must be at least 2"),
        ({"n_passes": 0}, r"sleep\.n_passes=0 must be at least 1"),
        ({"grad_passes": 3}, r"sleep\.grad_passes=3 must be from 1 to sleep\.n_passes=1"),
    ],
)
def test_impossible_sleep_is_refused(overrides: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SleepConfig(**overrides)  # type: ignore[arg-type]
