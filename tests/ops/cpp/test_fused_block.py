"""A block's halves as single operations, against the modules' parts in float64: values and all gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sleep_lightning.ops import (
    DeltaInputs,
    Layout,
    SharedWeight,
    add_product,
    attend,
    delta_inputs,
    feed_forward,
    gated_rms_norm,
    project,
    rms_norm,
    swiglu,
    window_attention,
)
from sleep_lightning.ops.cpp import build, fused_block

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason="the C++ kernels are not available")

EPS, B, T, E, H, D, FF = 1e-2, 5, 7, 16, 2, 8, 20
Leaves = dict[str, Tensor]
Half = Callable[[Leaves, torch.dtype], Tensor | tuple[Tensor, ...]]
LAYOUT = Layout(H, 4, 8, True, 2)
COS, SIN = (f(torch.arange(T)[:, None] * torch.rand(D // 2).repeat(2)) for f in (torch.cos, torch.sin))


def shared(x: Leaves, dtype: torch.dtype, out: str = "out") -> tuple[SharedWeight, SharedWeight]:
    return SharedWeight(x["in"], x["norm"], dtype), SharedWeight(x[out], None, dtype)


def product(x: Leaves, rows: slice = slice(None)) -> Tensor:
    return rms_norm(x["h"], x["norm"], EPS) @ x["in"][rows].t()


def fast_feed_forward(x: Leaves, dtype: torch.dtype, recompute: bool = False) -> Tensor:
    return feed_forward(x["h"], *shared(x, dtype), EPS, recompute=recompute)


def slow_feed_forward(x: Leaves, dtype: torch.dtype) -> Tensor:
    return x["h"] + swiglu(product(x)) @ x["out"].t()


def fast_attend(x: Leaves, dtype: torch.dtype) -> Tensor:
    return attend(x["h"], *shared(x, dtype), COS, SIN, H, EPS)


def slow_attend(x: Leaves, dtype: torch.dtype) -> Tensor:
    o = window_attention(product(x).unflatten(-1, (3, H, -1)), COS.double(), SIN.double())
    return x["h"] + o.flatten(2) @ x["out"].t()


def fast_remember(x: Leaves, dtype: torch.dtype, read: bool = True) -> Tensor | tuple[Tensor, ...]:
    into, out_of = shared(x, dtype)
    keys = LAYOUT.splits[0]
    taps, rows = (x["taps"], slice(None)) if read else (x["taps"][:, keys:], slice(keys, -H * D))
    p = project(x["h"], into, taps, x["A"], x["dt"], LAYOUT._replace(reads=read), rows, EPS)
    return read_out(x, p, lambda y: add_product(x["h"], y, out_of)) if read else (p.k, p.v, p.g, p.beta)


def slow_remember(x: Leaves, dtype: torch.dtype, read: bool = True) -> Tensor | tuple[Tensor, ...]:
    keys = LAYOUT.splits[0]
    taps, rows = (x["taps"], slice(None)) if read else (x["taps"][:, keys:], slice(keys, -H * D))
    p = delta_inputs(product(x, rows), taps, x["A"], x["dt"], LAYOUT._replace(reads=read))
    return read_out(x, p, lambda y: x["h"] + y @ x["out"].t()) if read else (p.k, p.v, p.g, p.beta)


def read_out(x: Leaves, p: DeltaInputs, add: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """The gate, too, is scaled where it is read."""
    assert p.q is not None and p.rest is not None
    return p.q, p.k, p.g, p.beta, add(gated_rms_norm(p.v, p.rest, x["read"], EPS, p.rest_scale))


HALVES: dict[str, tuple[Half, Half, int]] = {
    "feed forward": (fast_feed_forward, slow_feed_forward, 2 * FF),
    "feed forward, made again": (
        lambda x, dtype: fast_feed_forward(x, dtype, recompute=True),
        slow_feed_forward,
        2 * FF,
    ),
    "attend": (fast_attend, slow_attend, 3 * E),
    "remember": (fast_remember, slow_remember, sum(LAYOUT.splits) + 2 * H + H * D),
    "write": (
        lambda x, dtype: fast_remember(x, dtype, read=False),
        lambda x, dtype: slow_remember(x, dtype, read=False),
        sum(LAYOUT.splits) + 2 * H + H * D,
    ),
}


def leaves(channels: int) -> Leaves:
    widths = {2 * FF: FF, 3 * E: E}
    x = {
        "h": 3 * torch.randn(B, T, E),
        "in": torch.randn(channels, E) / 4,
        "norm": 1 + torch.rand(E),
        "out": torch.randn(E, widths.get(channels, H * D)) / 4,
        "taps": torch.randn(4, sum(LAYOUT.splits)) / 2,
        "A": torch.randn(H),
        "dt": torch.randn(H),
        "read": 1 + torch.rand(D),
    }
    return {name: value.to(torch.bfloat16).float() for name, value in x.items()}


def results(half: Half, x: Leaves, dtype: torch.dtype, products: torch.dtype) -> list[Tensor]:
    """Outputs, and the gradients of a fixed random projection of them."""
    own = {name: value.to(dtype).requires_grad_() for name, value in x.items()}
    outputs = half(own, products)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    loss = sum((y.double() * torch.randn(y.shape, generator=generator).double()).sum() for y in outputs)
    gradients = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
    return [*(y.detach() for y in outputs), *(g for g in gradients if g is not None)]


def assert_same(name: str, products: torch.dtype, tolerance: float) -> None:
    fast, slow, channels = HALVES[name]
    x = leaves(channels)
    actual = results(fast, x, torch.float32, products)
    for a, e in zip(actual, results(slow, x, torch.float64, torch.float64), strict=True):
        assert (a.double() - e).norm() <= tolerance * e.norm() + 1e-6


@pytest.mark.parametrize("rows", [1536, 10, 3])
@pytest.mark.parametrize("name", HALVES)
def test_is_the_modules_parts(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are taken at a time."""
    monkeypatch.setattr(fused_block, "ROWS", rows)
    assert_same(name, torch.float32, 1e-5)


@pytest.mark.parametrize("name", HALVES)
def test_products_in_bf16(name: str) -> None:
    assert_same(name, torch.bfloat16, 2e-2)


def test_the_gradient_of_all_uses_arrives_once_and_anew_in_every_backward() -> None:
    weight, norm = torch.randn(2 * FF, E, requires_grad=True), torch.rand(E, requires_grad=True)
    out = torch.randn(E, FF, requires_grad=True)
    into, out_of = SharedWeight(weight, norm, torch.float32), SharedWeight(out, None, torch.float32)
    h = torch.randn(3, 4, E, requires_grad=True)
    first, second = feed_forward(h, into, out_of, EPS), feed_forward(2 * h, into, out_of, EPS)
    one, other, both = (
        torch.autograd.grad(y.sum(), (weight, norm, out), retain_graph=True) for y in (first, second, first + second)
    )
    for a, b, c in zip(one, other, both, strict=True):
        torch.testing.assert_close(a + b, c)


def test_a_frozen_weight_is_used_but_not_summed_up() -> None:
    x = leaves(2 * FF)
    into, out_of = SharedWeight(x["in"], x["norm"], torch.float32), SharedWeight(x["out"], None, torch.float32)
    h = x["h"].requires_grad_()
    feed_forward(h, into, out_of, EPS).sum().backward()
    assert h.grad is not None and x["in"].grad is None
    assert into.gradient.take() is None and out_of.gradient.take() is None


def test_other_hidden_states_than_fp32_are_refused() -> None:
    x = leaves(2 * FF)
    with pytest.raises(TypeError, match="bfloat16"):
        feed_forward(x["h"].bfloat16(), *shared(x, torch.bfloat16), EPS)


def test_a_second_derivative_is_refused() -> None:
    x = leaves(2 * FF)
    h = x["h"].requires_grad_()
    y = feed_forward(h, *shared(x, torch.float32), EPS)
    (d,) = torch.autograd.grad(y.square().sum(), h, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        d.sum().backward()
