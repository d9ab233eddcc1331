"""Causal softmax attention of a window on itself, or on a cache too, with RoPE, out of a fused projection.

Shape suffixes: B batch, T tokens of the window, S cached tokens, P q, k and v, H heads, D head dim.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.ops.cpp.binding import Kernel, usable
from sleep_lightning.ops.dtype import at_least_fp32
from sleep_lightning.ops.non_finite import maybe_non_finite, nan_where, spoiled, without
from sleep_lightning.ops.rms_norm import rms_norm
from sleep_lightning.ops.transforms import first_derivative_only

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

    def __call__(self, qkv_BTPHD: Tensor) -> Tensor:
        """Queries and keys normed, values as they are."""
        q, k, v = qkv_BTPHD.unbind(2)
        return torch.stack((rms_norm(q, self.q_weight, self.eps), rms_norm(k, self.k_weight, self.eps), v), 2)


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
        o: Tensor = _WindowAttention.apply(qkv_BTPHD.contiguous(), weight, eps, cos_TD, sin_TD)
        return o
    if qk_norm is not None:
        qkv_BTPHD = qk_norm(qkv_BTPHD)
    if maybe_non_finite(qkv_BTPHD):
        spoiled_BTH = spoiled(qkv_BTPHD.transpose(2, 3))
        qkv_BTPHD = without(qkv_BTPHD.transpose(2, 3), spoiled_BTH).transpose(2, 3)
        o_BTHD = _plain_attention(qkv_BTPHD, cos_TD, sin_TD)
        return o_BTHD * nan_where(spoiled_BTH[..., None], o_BTHD)
    return _plain_attention(qkv_BTPHD, cos_TD, sin_TD)


def _plain_attention(qkv_BTPHD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    T = qkv_BTPHD.shape[1]
    qk_BTPHD, v_BTHD = qkv_BTPHD[:, :, :2], qkv_BTPHD[:, :, 2]
    q_BHTD, k_BHTD = _rotate(qk_BTPHD, cos_TD, sin_TD).permute(2, 0, 3, 1, 4)
    v_BHTD = v_BTHD.transpose(1, 2)
    if T > SHORT or qkv_BTPHD.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=True).transpose(1, 2)
    q, k, v = (x.flatten(0, 1) for x in (q_BHTD, k_BHTD, v_BHTD))
    above_TT = torch.full((T, T), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    scores = torch.baddbmm(above_TT, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), v).view_as(q_BHTD).transpose(1, 2)


def sliding_attention(qkv_BTPHD: Tensor, kv_BSPHD: Tensor, present: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each token attends to itself and to those of the S + T - 1 around that are at most max(S, T - 1) before it.

    With a cache of S = L - 1 tokens that is sliding-window attention of width L; without one (S = 0) it is
    ``window_attention`` with tokens left out. Positions are counted from the cache's start.

    Args:
        qkv_BTPHD: queries, keys and values of the window ``[B, T, 3, H, D]``, not rotated.
        kv_BSPHD: keys and values before it ``[B, S, 2, H, D]``, not rotated.
        present: ``[B, S + T]``, 0 for tokens that are not to be seen (but always by themselves).
        cos, sin: RoPE in the half-split form ``[S + T, D]``, fp32.

    Returns:
        ``[B, T, H, D]`` in the dtype of qkv.
    """
    S, T = kv_BSPHD.shape[1], qkv_BTPHD.shape[1]
    q_BTHD = _rotate(qkv_BTPHD[:, :, :1], cos[S:], sin[S:])[:, :, 0]
    kv = torch.cat((kv_BSPHD, qkv_BTPHD[:, :, 1:]), 1)
    bad_BSH = None
    if maybe_non_finite(kv):
        bad_BSH = ~kv.detach().isfinite().all(-1).all(2)
        kv = kv.masked_fill(bad_BSH[:, :, None, :, None], 0)
    k = _rotate(kv[:, :, :1], cos, sin)[:, :, 0]
    distance = torch.arange(S, S + T, device=k.device)[:, None] - torch.arange(S + T, device=k.device)
    near = (distance >= 0) & (distance <= max(S, T - 1))
    mask = near & (present[:, None] > 0) | (distance == 0)
    q_BHTD, k, v = (x.transpose(1, 2) for x in (q_BTHD, k, kv[:, :, 1]))
    if T > SHORT or qkv_BTPHD.device.type != "cpu":
        o_BTHD = F.scaled_dot_product_attention(q_BHTD, k, v, attn_mask=mask[:, None]).transpose(1, 2)
    else:
        scores = (q_BHTD * q_BHTD.shape[-1] ** -0.5) @ k.transpose(2, 3)
        o_BTHD = (scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1).to(v.dtype) @ v).transpose(1, 2)
    if bad_BSH is None:
        return o_BTHD
    sees_bad_BTH = (mask.to(o_BTHD.dtype) @ bad_BSH.to(o_BTHD.dtype)) > 0
    return o_BTHD * nan_where(sees_bad_BTH[..., None], o_BTHD)


def _rotate(x_BTPHD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """RoPE; arithmetic in fp32, result in the dtype of the input."""
    x1, x2 = at_least_fp32(x_BTPHD).chunk(2, -1)
    rotated = torch.cat((-x2, x1), -1)
    return (x_BTPHD * cos_TD[:, None, None] + rotated * sin_TD[:, None, None]).to(x_BTPHD.dtype)


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
