"""Causal softmax attention of a window on itself, or on a cache too, with RoPE, out of a fused projection.

Shape suffixes: B batch, T tokens of the window, S cached tokens, P parts (q, k, v), H heads of queries, G heads of keys
and values, D head dim, R dims that are rotated.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.ops.cpp.binding import Kernel, usable
from sleep_lightning.ops.dtype import at_least_fp32
from sleep_lightning.ops.non_finite import maybe_non_finite, nan_where
from sleep_lightning.ops.rms_norm import rms_norm
from sleep_lightning.ops.transforms import apply, first_derivative_only, on_cpu

SHORT = 128
"""Longest window attended on CPU without ``scaled_dot_product_attention``, which is built for long ones."""

_attention = Kernel("B T H D threads bf16", "scale eps", "qkv qk_weight cos sin o log_sums d_o d_qkv d_qk_weight")


class QKNorm(NamedTuple):
    """RMSNorm of queries and of keys, each head normalised on its own.

    Attributes:
        q_weight, k_weight: ``[D]``.
        eps: added to the mean square.
    """

    q_weight: Tensor
    k_weight: Tensor
    eps: float

    def __call__(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Both normed, ``[..., D]``."""
        return rms_norm(q, self.q_weight, self.eps), rms_norm(k, self.k_weight, self.eps)


def window_attention(qkv_BTPHD: Tensor, cos_TD: Tensor, sin_TD: Tensor, qk_norm: QKNorm | None = None) -> Tensor:
    """Attention with rotated queries and keys, positions counted from the window's start.

    Args:
        qkv_BTPHD: queries, keys and values ``[B, T, 3, H, D]``, D even.
        cos_TD, sin_TD: RoPE in the half-split form, fp32.
        qk_norm: applied to queries and keys before they are rotated.

    Returns:
        ``[B, T, H, D]`` in the dtype of qkv.
    """
    if qkv_BTPHD.shape[1] <= SHORT and usable(qkv_BTPHD) and (qk_norm is None or _is_fp32(qk_norm)):
        weight, eps = (None, 0.0) if qk_norm is None else (torch.stack(qk_norm[:2]), qk_norm.eps)
        o: Tensor = apply(_WindowAttention, qkv_BTPHD.contiguous(), weight, eps, cos_TD, sin_TD)
        return o
    q, k, v = qkv_BTPHD.unbind(2)
    return grouped_attention(q, k, v, cos_TD, sin_TD, qk_norm)


def grouped_attention(
    q_BTHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    cos_TR: Tensor,
    sin_TR: Tensor,
    qk_norm: QKNorm | None = None,
    width: int | None = None,
) -> Tensor:
    """``window_attention`` in torch, with fewer heads of keys and values, RoPE on some of D, and a limited view.

    Args:
        q_BTHD: queries.
        k_BTGD, v_BTGD: keys and values of G heads, each for H / G consecutive heads of queries.
        cos_TR, sin_TR: RoPE in the half-split form for the first R of D dims, fp32.
        qk_norm: applied to queries and keys before they are rotated.
        width: tokens that a token sees, itself among them; None: all before it.

    Returns:
        ``[B, T, H, D]`` in the dtype of v.
    """
    if qk_norm is not None:
        q_BTHD, k_BTGD = qk_norm(q_BTHD, k_BTGD)
    if not maybe_non_finite(q_BTHD, k_BTGD, v_BTGD):
        return _plain_attention(q_BTHD, k_BTGD, v_BTGD, cos_TR, sin_TR, width)
    bad_BTG = ~(k_BTGD.detach().isfinite() & v_BTGD.detach().isfinite()).all(-1)
    k_BTGD, v_BTGD = (x.masked_fill(bad_BTG[..., None], 0) for x in (k_BTGD, v_BTGD))
    o_BTHD = _plain_attention(q_BTHD, k_BTGD, v_BTGD, cos_TR, sin_TR, width)
    return spoil(o_BTHD, _seen(q_BTHD.shape[1], width, q_BTHD.device), bad_BTG)


def spoil(o_BTHD: Tensor, seen: Tensor, bad_BSG: Tensor) -> Tensor:
    """NaN for tokens that see one of which a key or value is not finite."""
    sees_bad_BTG = (seen.to(o_BTHD.dtype) @ bad_BSG.to(o_BTHD.dtype)) > 0
    groups = o_BTHD.shape[2] // bad_BSG.shape[2]
    return o_BTHD * nan_where(sees_bad_BTG.repeat_interleave(groups, 2)[..., None], o_BTHD)


def _plain_attention(
    q_BTHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, cos: Tensor, sin: Tensor, width: int | None
) -> Tensor:
    T, H, G = *q_BTHD.shape[1:3], k_BTGD.shape[2]
    q, k = (rotate(x, cos, sin).transpose(1, 2) for x in (q_BTHD, k_BTGD))
    v = v_BTGD.transpose(1, 2)
    limited = width is not None and width < T
    if T > SHORT or not on_cpu(q):
        mask = _seen(T, width, q.device) if limited else None
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=not limited, enable_gqa=H != G)
        return o.transpose(1, 2)
    if H != G:
        k, v = (x.repeat_interleave(H // G, 1) for x in (k, v))
    hidden_TT = torch.zeros(T, T, dtype=q.dtype, device=q.device).masked_fill(~_seen(T, width, q.device), -torch.inf)
    scores = torch.baddbmm(hidden_TT, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), v.flatten(0, 1)).view_as(q).transpose(1, 2)


def _seen(T: int, width: int | None, device: torch.device) -> Tensor:
    """``[T, T]``: which tokens (columns) a token (row) sees."""
    seen_TT = torch.ones(T, T, dtype=torch.bool, device=device).tril()
    return seen_TT if width is None else seen_TT.triu(1 - width)


def sliding_attention(
    q_BTHD: Tensor,
    kv_BTPGD: Tensor,
    past_BSPGD: Tensor,
    present: Tensor,
    cos: Tensor,
    sin: Tensor,
    width: int | None = None,
) -> Tensor:
    """Each token attends to itself and to those of the S + T - 1 around that are at most max(S, T - 1) before it.

    With a cache of S = L - 1 tokens that is sliding-window attention of width L; without one (S = 0) it is
    ``window_attention`` with tokens left out. Positions are counted from the cache's start.

    Args:
        q_BTHD: queries of the window, not rotated.
        kv_BTPGD: keys and values of the window ``[B, T, 2, G, D]``, not rotated.
        past_BSPGD: those before it ``[B, S, 2, G, D]``.
        present: ``[B, S + T]``, 0 for tokens that are not to be seen (but always by themselves).
        cos, sin: RoPE in the half-split form ``[S + T, R]`` for the first R of D dims, fp32.
        width: tokens that a token sees, itself among them, if that is less.

    Returns:
        ``[B, T, H, D]`` in the dtype of the queries.
    """
    S, T, H, G = past_BSPGD.shape[1], *q_BTHD.shape[1:3], kv_BTPGD.shape[3]
    kv = torch.cat((past_BSPGD, kv_BTPGD), 1)
    bad_BSG = None
    if maybe_non_finite(kv):
        bad_BSG = ~kv.detach().isfinite().all(-1).all(2)
        kv = kv.masked_fill(bad_BSG[:, :, None, :, None], 0)
    distance = torch.arange(S, S + T, device=kv.device)[:, None] - torch.arange(S + T, device=kv.device)
    farthest = max(S, T - 1) if width is None else min(max(S, T - 1), width - 1)
    near = (distance >= 0) & (distance <= farthest)
    mask = near & (present[:, None] > 0) | (distance == 0)
    q, k, v = (
        x.transpose(1, 2) for x in (rotate(q_BTHD, cos[S:], sin[S:]), rotate(kv[:, :, 0], cos, sin), kv[:, :, 1])
    )
    if T > SHORT or not on_cpu(q):
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], enable_gqa=H != G)
    else:
        if H != G:
            k, v = (x.repeat_interleave(H // G, 1) for x in (k, v))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        o = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1).to(v.dtype) @ v
    o_BTHD = o.transpose(1, 2)
    return o_BTHD if bad_BSG is None else spoil(o_BTHD, mask, bad_BSG)


def rotate(x_BTHD: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """RoPE of the first R dims, at positions of its own for each row if tables are ``[B, T, R]``; arithmetic in fp32,
    result in the dtype of the input."""
    R = cos_TR.shape[-1]
    turned = at_least_fp32(x_BTHD[..., :R])
    x1, x2 = turned.chunk(2, -1)
    turned = turned * cos_TR[..., None, :] + torch.cat((-x2, x1), -1) * sin_TR[..., None, :]
    turned = turned.to(x_BTHD.dtype)
    return turned if x_BTHD.shape[-1] == R else torch.cat((turned, x_BTHD[..., R:]), -1)


def _is_fp32(norm: QKNorm) -> bool:
    return norm.q_weight.dtype == norm.k_weight.dtype == torch.float32


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, qk_weight: Tensor | None, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
        cos, sin = cos.float().contiguous(), sin.float().contiguous()
        B, T, _, H, D = qkv.shape
        o, log_sums = qkv.new_empty(B, T, H, D), qkv.new_empty(B, H, T, dtype=torch.float32)
        given = {"qkv": qkv, "qk_weight": qk_weight, "eps": eps, "cos": cos, "sin": sin}
        _attention("window_attention_forward", **_sizes(qkv), **given, o=o, log_sums=log_sums)
        ctx.save_for_backward(qkv, qk_weight, cos, sin, log_sums)
        ctx.eps = eps
        return o

    @staticmethod
    @first_derivative_only("the C++ window attention")
    def backward(ctx: Any, d_o: Tensor) -> tuple[Tensor | None, ...]:
        qkv, qk_weight, cos, sin, log_sums = ctx.saved_tensors
        sizes, d_qkv = _sizes(qkv), torch.empty_like(qkv)
        d_qk_weight = None if qk_weight is None else qk_weight.new_empty(int(sizes["B"] * sizes["H"]), *qk_weight.shape)
        given = {"qkv": qkv, "qk_weight": qk_weight, "eps": ctx.eps, "cos": cos, "sin": sin, "log_sums": log_sums}
        given |= {"d_o": d_o.contiguous(), "d_qkv": d_qkv, "d_qk_weight": d_qk_weight}
        _attention("window_attention_backward", **sizes, **given)
        return d_qkv, None if d_qk_weight is None else d_qk_weight.sum(0), None, None, None


def _sizes(qkv: Tensor) -> dict[str, float]:
    B, T, _, H, D = qkv.shape
    return {"B": B, "T": T, "H": H, "D": D, "bf16": qkv.dtype == torch.bfloat16, "scale": D**-0.5}
