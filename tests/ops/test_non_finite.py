"""Operators around the memory rules: a token that is not finite leaves those before it, and no tokens are no error."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from sleep_lightning.ops import (
    Layout,
    QKNorm,
    attention,
    delta_inputs,
    dynamic_conv,
    gated_rms_norm,
    rms_norm,
    short_conv,
    sliding_attention,
    swiglu,
    window_attention,
)
from sleep_lightning.testing.memory_rule import plain_torch

LAYOUT = Layout(2, 4, 6, True, 1)
CHANNELS = sum(LAYOUT.splits)


def taps(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, int(torch.tensor(shape).prod())).view(shape)


def angles(T: int) -> tuple[Tensor, Tensor]:
    angle = torch.arange(T)[:, None] * torch.tensor([1.0, 0.1]).repeat(2)
    return angle.cos(), angle.sin()


def slide(x: Tensor) -> Tensor:
    S, T = 7, x.shape[1]
    past, present = torch.ones(x.shape[0], S, 2, 2, 4), torch.ones(x.shape[0], S + T)
    return sliding_attention(x[:, :, 0], x[:, :, 1:], past, present, *angles(S + T))


CASES: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "window_attention": ((3, 2, 4), lambda x: window_attention(x, *angles(x.shape[1]))),
    "QK-norm": (
        (3, 2, 4),
        lambda x: window_attention(x, *angles(x.shape[1]), QKNorm(torch.ones(4), torch.ones(4), 1e-6)),
    ),
    "sliding_attention": ((3, 2, 4), slide),
    "short_conv": ((5,), lambda x: short_conv(x, taps(4, 5))),
    "dynamic_conv": ((5,), lambda x: dynamic_conv(x, x.new_ones(*x.shape[:2], 4, 5))),
    "rms_norm": ((8,), lambda x: rms_norm(x, torch.ones(8), 1e-6)),
    "gated_rms_norm": ((2, 4), lambda x: gated_rms_norm(x, x.flatten(2), torch.ones(4), 1e-6)),
    "swiglu": ((8,), swiglu),
    "delta_inputs": ((CHANNELS + 4,), lambda x: delta_inputs(x, taps(4, CHANNELS), taps(2), taps(2), LAYOUT).k),
}


@pytest.fixture(params=["C++", "plain", "scaled_dot_product_attention"], autouse=True)
def _code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "C++":
        yield
        return
    if request.param != "plain":
        monkeypatch.setattr(attention, "SHORT", 0)
    with plain_torch():
        yield


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", CASES)
def test_tokens_before_one_that_is_not_finite_are_as_they_were(name: str, value: float) -> None:
    shape, f = CASES[name]
    x = torch.randn(2, 40, *shape)
    spoiled = x.clone()
    spoiled[1, 21] = value
    actual, expected = f(spoiled), f(x)
    assert torch.equal(actual[0], expected[0])
    torch.testing.assert_close(actual[1, :21], expected[1, :21], rtol=1e-6, atol=1e-6)
    if value != value:
        assert not actual[1, 21].isfinite().any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_cached_token_that_is_not_finite_spoils_those_that_see_it_only(value: float) -> None:
    qkv, kv, (cos, sin) = torch.randn(1, 12, 3, 2, 4), torch.randn(1, 7, 2, 2, 4), angles(19)
    present = torch.ones(1, 19)
    expected = sliding_attention(qkv[:, :, 0], qkv[:, :, 1:], kv, present, cos, sin)
    kv[:, 2] = value
    actual = sliding_attention(
        qkv[:, :, 0], qkv[:, :, 1:], kv, present, cos, sin
    )  # tokens see up to 11 before: of token 2 to 13, those from 7 on
    assert actual[:, :7].isnan().all()
    torch.testing.assert_close(actual[:, 7:], expected[:, 7:])
    present[:, 2] = 0
    assert sliding_attention(qkv[:, :, 0], qkv[:, :, 1:], kv, present, cos, sin).isfinite().all()


@pytest.mark.parametrize(("B", "T"), [(0, 3), (2, 0)])
@pytest.mark.parametrize("name", CASES)
def test_nothing_in_nothing_out(name: str, B: int, T: int) -> None:
    shape, f = CASES[name]
    x = torch.randn(B, T, *shape, requires_grad=True)
    y = f(x)
    assert y.shape[:2] == (B, T) and y.numel() == 0
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape
