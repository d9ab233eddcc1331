"""Elementwise work between the matrix products: the C++ kernels against the plain torch code in float64."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.ops import (
    Layout,
    QKNorm,
    delta_inputs,
    delta_inputs_after,
    gated_rms_norm,
    rms_norm,
    swiglu,
    window_attention,
)
from sleep_lightning.ops.cpp import binding, build
from sleep_lightning.testing.memory_rule import plain_torch

Operator = Callable[..., Any]
Case = tuple[Operator, list[Tensor]]


def norm_case(B: int, T: int, H: int, D: int) -> Case:
    return partial(rms_norm, eps=1e-6), [3 * torch.randn(B, T, H * D), torch.randn(H * D)]


def gated_norm_case(B: int, T: int, H: int, D: int) -> Case:
    def run(x: Tensor, wide: Tensor, weight: Tensor) -> Tensor:
        return gated_rms_norm(x, wide[..., 3:], weight, 1e-6)

    return run, [torch.randn(B, T, H, D), torch.randn(B, T, H * D + 3), torch.randn(D)]


def swiglu_case(B: int, T: int, H: int, D: int) -> Case:
    return swiglu, [3 * torch.randn(B, T, 2 * H * D)]


def delta_inputs_case(
    B: int,
    T: int,
    H: int,
    D: int,
    *,
    reads: bool = True,
    values: bool = True,
    decays: bool = True,
    taps: int = 4,
    rest: int = 5,
    beta_scale: int = 1,
    eps: float | None = 1e-6,
) -> Case:
    layout = Layout(H, D, D + 3 if values else 0, reads, beta_scale, eps)
    channels = sum(layout.splits)
    if not decays:
        x = torch.randn(B, T, channels + H + rest)
        return lambda x, w: delta_inputs(x, w, None, None, layout)._replace(g=None), [x, torch.randn(taps, channels)]
    x, gates = torch.randn(B, T, channels + 2 * H + rest), (torch.randn(H), torch.randn(H))
    if not values:
        return lambda x, A, b: delta_inputs(x, None, A, b, layout)._replace(v=None), [x, *gates]
    if not taps:
        return lambda x, A, b: delta_inputs(x, None, A, b, layout), [x, *gates]
    return lambda x, w, A, b: delta_inputs(x, w, A, b, layout), [x, torch.randn(taps, channels), *gates]


def attention_case(B: int, T: int, H: int, D: int) -> Case:
    angle = torch.rand(T, D // 2 + 1).repeat(1, 2)
    return (
        lambda qkv: window_attention(qkv, angle.cos().to(qkv), angle.sin().to(qkv)),
        [torch.randn(B, T, 3, H, 2 * (D // 2 + 1))],
    )


def qk_norm_case(B: int, T: int, H: int, D: int) -> Case:
    angle = torch.rand(T, D // 2 + 1).repeat(1, 2)

    def attend(qkv: Tensor, q_weight: Tensor, k_weight: Tensor) -> Tensor:
        return window_attention(qkv, angle.cos().to(qkv), angle.sin().to(qkv), QKNorm(q_weight, k_weight, 1e-6))

    width = angle.shape[1]
    return attend, [torch.randn(B, T, 3, H, width), torch.randn(width), torch.randn(width)]


CASES = {
    "rms_norm": norm_case,
    "gated_rms_norm": gated_norm_case,
    "swiglu": swiglu_case,
    "delta_inputs": delta_inputs_case,
    "a write": partial(delta_inputs_case, reads=False, rest=0, taps=3),
    "no convolution": partial(delta_inputs_case, taps=0, beta_scale=2),
    "no values": partial(delta_inputs_case, taps=0, values=False),
    "no decay": partial(delta_inputs_case, decays=False),
    "a large epsilon of the L2 norm": partial(delta_inputs_case, eps=0.5),
    "over the norm itself": partial(delta_inputs_case, eps=None),
    "window_attention": attention_case,
    "window_attention with QK-norm": qk_norm_case,
}


def results(case: Case, dtype: torch.dtype) -> list[Tensor]:
    """Outputs and the gradients of a fixed random projection of them; weights stay fp32 next to bf16 activations."""
    operator, leaves = case
    weights = torch.float32 if dtype == torch.bfloat16 else dtype
    leaves = [x.to(dtype if x.dim() > 2 else weights).requires_grad_() for x in leaves]
    outputs = operator(*leaves)
    outputs = [y for y in (outputs if isinstance(outputs, tuple) else (outputs,)) if y is not None]
    generator = torch.Generator().manual_seed(1)
    loss = sum((y.double() * torch.randn(y.shape, generator=generator).double()).sum() for y in outputs)
    return [y.detach() for y in outputs] + list(torch.autograd.grad(loss, leaves))


def assert_native_is_the_definition(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    actual = results(case, dtype)
    rounded = case[0], [x.to(dtype).double() if x.dim() > 2 else x.double() for x in case[1]]
    B, T = case[1][0].shape[:2]
    for a, e in zip(actual, results(rounded, torch.float64), strict=True):
        # a weight's gradient is a sum over all tokens, whose terms may cancel: its rounding is that of their sizes
        floor = 1e-2 * (B * T) ** 0.5 if e.dim() <= 2 else 1e-2
        error = (a.double() - e).square().mean().sqrt() / (e.square().mean().sqrt() + floor)
        assert torch.isfinite(a).all()
        assert error <= tolerance, f"{tuple(a.shape)}: relative RMS error {float(error):.1e}"


@pytest.fixture
def built() -> None:
    if reason := build.why_not():
        pytest.skip(reason)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("name", CASES)
class TestNative:
    # From 4 channels on: normalised alone, a channel has no gradient but rounding.
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        B=st.integers(1, 40), T=st.integers(1, 50), H=st.integers(1, 3), D=st.integers(4, 70), seed=st.integers(0, 99)
    )
    def test_random_shapes(self, name: str, B: int, T: int, H: int, D: int, seed: int) -> None:
        torch.manual_seed(seed)
        assert_native_is_the_definition(CASES[name](min(B, 1 + 200 // T), T, H, D), torch.float32, 2e-5)

    @pytest.mark.parametrize("T", [1, 24])
    def test_bfloat16(self, name: str, T: int) -> None:
        torch.manual_seed(0)
        case = CASES[name](3, T, 2, 16)
        assert_native_is_the_definition(case, torch.bfloat16, 1e-2)
        gradients = results(case, torch.bfloat16)[-len(case[1]) :]
        assert [d.dtype for d in gradients] == [torch.bfloat16 if x.dim() > 2 else torch.float32 for x in case[1]]

    def test_threads_change_nothing(self, name: str) -> None:
        torch.manual_seed(0)
        case, threads, found = CASES[name](37, 9, 3, 20), torch.get_num_threads(), []
        try:
            for n in (1, 2, 3):
                torch.set_num_threads(n)
                found.append(results(case, torch.float32))
        finally:
            torch.set_num_threads(threads)
        for other in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))

    def test_the_kernel_is_what_runs(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Or the comparisons above would compare the definition with itself."""
        called = []
        original = binding.Kernel.__call__

        def spy(self: binding.Kernel, function: str, **values: Any) -> None:
            called.append(function)
            original(self, function, **values)

        monkeypatch.setattr(binding.Kernel, "__call__", spy)
        results(CASES[name](2, 5, 2, 8), torch.float32)
        assert [c.rsplit("_", 1)[1] for c in called] == ["forward", "backward"]
        called.clear()
        monkeypatch.setenv(build.SWITCH, "0")
        results(CASES[name](2, 5, 2, 8), torch.float32)
        results(CASES[name](2, 5, 2, 8), torch.float16)
        assert called == []

    def test_compiles_into_one_graph(self, name: str) -> None:
        torch.manual_seed(0)
        operator, leaves = CASES[name](2, 5, 2, 8)
        compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")
        eager, graph = (results((f, leaves), torch.float32) for f in (operator, compiled))
        for a, b in zip(eager, graph, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("built")
def test_extreme_values_stay_finite() -> None:
    for name, make in CASES.items():
        for scale in (0.0, 1e-20, 1e4):
            operator, leaves = make(2, 6, 2, 8)
            actual = results((operator, [scale * leaves[0], *leaves[1:]]), torch.float32)
            assert all(torch.isfinite(x).all() for x in actual), (name, scale)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-4, 0.0])
def test_keys_and_queries_are_normalised_as_in_the_published_blocks(size: float, native: bool) -> None:
    """``x rsqrt(sum x^2 + 1e-6)``: over the norm itself, small keys would be up to unit keys."""
    layout, x = Layout(2, 4, 3, True, 1), size * torch.randn(2, 5, 2 * 2 * 4 + 6 + 2)
    with nullcontext() if native else plain_torch():
        inputs = delta_inputs(x, None, None, None, layout)
        over_norm = delta_inputs(x, None, None, None, layout._replace(qk_l2norm_eps=None))
    convolved = F.silu(x.double())
    for y, unit, part in ((inputs.q, over_norm.q, slice(0, 8)), (inputs.k, over_norm.k, slice(8, 16))):
        assert y is not None and unit is not None
        heads = convolved[..., part].unflatten(-1, (2, 4))
        torch.testing.assert_close(y.double(), heads * torch.rsqrt(heads.square().sum(-1, True) + 1e-6))
        torch.testing.assert_close(unit.double(), F.normalize(heads, dim=-1))


@pytest.mark.usefixtures("built")
def test_no_future_token_is_attended() -> None:
    for make in (attention_case, delta_inputs_case):
        operator, (x, *rest) = make(2, 9, 2, 8)
        changed = x.clone()
        changed[:, 5:] += 1e3
        outputs, expected = operator(changed, *rest), operator(x, *rest)
        pairs = zip(outputs, expected, strict=True) if isinstance(outputs, tuple) else [(outputs, expected)]
        for a, b in pairs:
            assert (a is None and b is None) or torch.equal(a[:, :5], b[:, :5])


@pytest.mark.parametrize("T", [1, 5, 24, 128, 150])
def test_window_attention_is_sdpa(T: int) -> None:
    qkv = torch.randn(2, T, 3, 3, 8, requires_grad=True)
    weight = torch.randn(2, T, 3, 8)
    expected = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), is_causal=True).transpose(1, 2)
    actual = window_attention(qkv, torch.ones(T, 8), torch.zeros(T, 8))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad((o * weight).sum(), qkv, retain_graph=True)[0] for o in (actual, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rms_norm_is_torchs(dtype: torch.dtype) -> None:
    x, weight = torch.randn(4, 5, 12, dtype=dtype), torch.randn(12, dtype=dtype)
    torch.testing.assert_close(rms_norm(x, weight, 1e-6), F.rms_norm(x, (12,), weight, 1e-6))
    with torch.autocast("cpu", torch.bfloat16):
        assert rms_norm(x, weight, 1e-6).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_without_decay_g_is_zero_and_has_no_gradient(dtype: torch.dtype) -> None:
    layout = Layout(2, 4, 6, True, 1)
    x = torch.randn(3, 5, sum(layout.splits) + 2, dtype=dtype, requires_grad=True)
    g = delta_inputs(x, None, None, None, layout).g
    assert g.shape == (3, 5, 2) and g.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert not g.any() and not g.requires_grad


def test_carried_conv_inputs_continue_the_convolution() -> None:
    layout = Layout(2, 4, 6, True, 1)
    x, taps = torch.randn(3, 10, sum(layout.splits) + 4, dtype=torch.float64), torch.randn(4, sum(layout.splits))
    gates = (torch.randn(2, dtype=torch.float64), torch.randn(2, dtype=torch.float64))
    whole = delta_inputs(x, taps.double(), *gates, layout)
    carried, parts = torch.zeros(3, 3, sum(layout.splits), dtype=torch.float64), []
    for part in x.split((4, 1, 5), 1):
        inputs, carried = delta_inputs_after(carried, part, taps.double(), *gates, layout)
        parts.append(inputs)
    for expected, *pieces in zip(whole[:5], *(p[:5] for p in parts), strict=True):
        torch.testing.assert_close(torch.cat(pieces, 1), expected)
