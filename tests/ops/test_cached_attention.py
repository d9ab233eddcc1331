"""Attention on slots, compared with softmax written out."""

import pytest
import torch
from torch import Tensor

from sleep_lightning.ops import cached_attention
from sleep_lightning.ops.attention import SHORT


def written_out(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    B, T, H, D = q.shape
    o = torch.zeros(B, T, H, v.shape[-1], dtype=q.dtype)
    for b in range(B):
        for t in range(T):
            slots = seen[b if len(seen) == B else 0, t].nonzero()[:, 0]
            for h in range(H):
                g = h // (H // k.shape[1])
                weights = (k[b, g, slots] @ q[b, t, h] * D**-0.5).softmax(0)
                o[b, t, h] = weights @ v[b, g, slots]
    return o


def case(T: int, S: int, H: int, G: int, B: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(B, T, H, 4, dtype=torch.float64),
        torch.randn(B, G, S, 4, dtype=torch.float64),
        torch.randn(B, G, S, 4, dtype=torch.float64),
    )


@pytest.mark.parametrize(("H", "G"), [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("T", [1, 3, SHORT + 1])
@pytest.mark.parametrize("rows", [1, 2])
def test_it_is_softmax_over_what_is_seen(T: int, H: int, G: int, rows: int) -> None:
    q, k, v = case(T, 7, H, G)
    seen = torch.rand(rows, T, 7) > 0.4
    seen[..., 2] = True
    torch.testing.assert_close(cached_attention(q, k, v, seen), written_out(q, k, v, seen))
    everything = torch.ones(1, T, 7, dtype=torch.bool)
    torch.testing.assert_close(cached_attention(q, k, v, None), written_out(q, k, v, everything))


@pytest.mark.parametrize("T", [2, SHORT + 1])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_seen_does_not_matter(T: int, value: float) -> None:
    q, k, v = case(T, 5, 2, 1)
    seen = torch.ones(2, T, 5, dtype=torch.bool)
    seen[0, 0, 3] = False
    expected = cached_attention(q, k, v, seen)
    k[0, 0, 3, 1] = v[0, 0, 3, 0] = value
    o = cached_attention(q, k, v, seen)
    torch.testing.assert_close(o[0, 0], expected[0, 0])
    torch.testing.assert_close(o[1], expected[1])
    assert o[0, 1:].isnan().all(), "and what is seen does"


def test_half_precision_queries_keep_their_dtype() -> None:
    q, k, v = (x.float() for x in case(1, 5, 2, 2))
    o = cached_attention(q.bfloat16(), k, v, None)
    assert o.dtype == torch.bfloat16
    torch.testing.assert_close(o.float(), cached_attention(q, k, v, None), rtol=0.05, atol=0.05)
