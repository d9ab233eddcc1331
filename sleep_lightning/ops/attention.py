"""Causal softmax attention of a window on itself, with RoPE, out of a fused projection.

Shape suffixes: B batch, T tokens of the window, H heads, D head dim.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sleep_lightning.ops.dtype import at_least_fp32
from sleep_lightning.ops.native.kernel import Kernel, usable

SHORT = 128
"""Longest window attended by kernels of our own on CPU: ``scaled_dot_product_attention`` is built for long ones."""

_attention = Kernel("B T H D threads bf16", "scale", "qkv cos sin o log_sums d_o d_qkv")


def window_attention(qkv_BTPHD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Attention with rotated queries and keys, positions counted from the window's start.

    Args:
        qkv_BTPHD: queries, keys and values ``[B, T, 3, H, D]``, D even.
        cos_TD, sin_TD: RoPE in the half-split form, fp32.

    Returns:
        ``[B, T, H, D]`` in the dtype of qkv.
    """
    T, D = qkv_BTPHD.shape[1], qkv_BTPHD.shape[-1]
    if T <= SHORT and usable(qkv_BTPHD):
        o: Tensor = _WindowAttention.apply(qkv_BTPHD, cos_TD, sin_TD)
        return o
    qk_BTPHD, v_BTHD = qkv_BTPHD[:, :, :2], qkv_BTPHD[:, :, 2]
    q_BHTD, k_BHTD = _rotate(qk_BTPHD, cos_TD, sin_TD).permute(2, 0, 3, 1, 4)
    v_BHTD = v_BTHD.transpose(1, 2)
    if T > SHORT or qkv_BTPHD.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=True).transpose(1, 2)
    q, k, v = (x.reshape(-1, T, D) for x in (q_BHTD, k_BHTD, v_BHTD))
    above_TT = torch.full((T, T), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    scores = torch.baddbmm(above_TT, q, k.transpose(1, 2), alpha=D**-0.5)
    return torch.bmm(scores.softmax(-1), v).view_as(q_BHTD).transpose(1, 2)


def _rotate(x_BTPHD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """RoPE; arithmetic in fp32, result in the dtype of the input."""
    x1, x2 = at_least_fp32(x_BTPHD).chunk(2, -1)
    rotated = torch.cat((-x2, x1), -1)
    return (x_BTPHD * cos_TD[:, None, None] + rotated * sin_TD[:, None, None]).to(x_BTPHD.dtype)


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        qkv, cos, sin = qkv.contiguous(), cos.float().contiguous(), sin.float().contiguous()
        B, T, _, H, D = qkv.shape
        o, log_sums = qkv.new_empty(B, T, H, D), qkv.new_empty(B, H, T, dtype=torch.float32)
        _attention("window_attention_forward", **_sizes(qkv), qkv=qkv, cos=cos, sin=sin, o=o, log_sums=log_sums)
        ctx.save_for_backward(qkv, cos, sin, log_sums)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor) -> tuple[Tensor | None, ...]:
        qkv, cos, sin, log_sums = ctx.saved_tensors
        d_o, d_qkv = d_o.contiguous(), torch.empty_like(qkv)
        given = {"qkv": qkv, "cos": cos, "sin": sin, "log_sums": log_sums, "d_o": d_o}
        _attention("window_attention_backward", **_sizes(qkv), **given, d_qkv=d_qkv)
        return d_qkv, None, None


def _sizes(qkv: Tensor) -> dict[str, float]:
    B, T, _, H, D = qkv.shape
    return {"B": B, "T": T, "H": H, "D": D, "bf16": qkv.dtype == torch.bfloat16, "scale": D**-0.5}
