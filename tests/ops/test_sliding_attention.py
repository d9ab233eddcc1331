"""Sliding attention against softmax attention written out token by token."""

import pytest
import torch
from torch import Tensor

from sleep_lightning.ops import attention
from sleep_lightning.ops.attention import sliding_attention


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    x1, x2 = x.chunk(2, -1)
    return x * cos + torch.cat((-x2, x1), -1) * sin


def by_token(qkv: Tensor, kv: Tensor, present: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The definition: one query, its visible keys, a softmax."""
    B, T, _, H, D = qkv.shape
    S = kv.shape[1]
    keys, values = torch.cat((kv, qkv[:, :, 1:]), 1).unbind(2)
    o = torch.empty(B, T, H, D, dtype=qkv.dtype)
    for b in range(B):
        for t in range(T):
            seen = [
                s for s in range(S + t + 1) if s == S + t or (S + t - s <= max(S, T - 1) and float(present[b, s]) > 0)
            ]
            for h in range(H):
                q = rotate(qkv[b, t, 0, h], cos[S + t], sin[S + t])
                k = torch.stack([rotate(keys[b, s, h], cos[s], sin[s]) for s in seen])
                o[b, t, h] = torch.softmax(k @ q * D**-0.5, 0) @ values[b, seen, h]
    return o


def packed(qkv: Tensor, kv: Tensor, *rest: Tensor) -> Tensor:
    return sliding_attention(qkv[:, :, 0], qkv[:, :, 1:], kv, *rest)


def inputs(B: int, T: int, S: int, H: int, D: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, T, 3, H, D, generator=generator, dtype=torch.float64).to(dtype)
    kv = torch.randn(B, S, 2, H, D, generator=generator, dtype=torch.float64).to(dtype)
    present = (torch.rand(B, S + T, generator=generator) > 0.3).to(dtype)
    angle = torch.arange(S + T)[:, None] * 10.0 ** -torch.arange(D // 2, dtype=torch.float64).repeat(2)
    full = torch.promote_types(dtype, torch.float32)
    return qkv, kv, present, angle.cos().to(full), angle.sin().to(full)


@pytest.mark.parametrize("short", [128, 0], ids=["written out", "scaled_dot_product_attention"])
@pytest.mark.parametrize("S", [0, 3, 6])
def test_values_and_gradients_are_those_of_the_definition(S: int, short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SHORT", short)
    qkv, kv, *rest = inputs(2, 5, S, 2, 4)
    results = []
    for f in (by_token, packed):
        leaves = [qkv.clone().requires_grad_(), kv.clone().requires_grad_()]
        o = f(*leaves, *rest)
        weights = torch.linspace(-1, 1, o.numel(), dtype=o.dtype).view_as(o)
        results.append([o, *torch.autograd.grad((o * weights).sum(), leaves)])
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-10)


def test_bfloat16_comes_back_as_bfloat16_and_is_no_further_off_than_its_rounding() -> None:
    exact = inputs(2, 12, 11, 2, 8)
    o = packed(*inputs(2, 12, 11, 2, 8, torch.bfloat16))
    assert o.dtype == torch.bfloat16
    assert float((o.double() - packed(*exact)).abs().max()) < 5e-2
