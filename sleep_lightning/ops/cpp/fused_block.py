"""A block's parts between two norms as one operation each, on CPU with the C++ kernels and shared weights.

The norm in front of a projection is folded into it: its weight into the matrix, its ``1 / rms`` (``rstd``, one number
a token) into whoever reads the product's rows. So no normed copy of the hidden states is made or kept; what is kept for
the backward are the hidden states, the projections and what the mixers need. Values and gradients are those of the
modules to rounding.

Shape suffixes: B batch, T tokens, R = B T rows, E d_model, F width of the SwiGLU, C channels of a projection.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sleep_lightning.ops.attention import window_attention_backward, window_attention_forward
from sleep_lightning.ops.cpp.binding import Kernel
from sleep_lightning.ops.cpp.packed_weight import SharedWeight
from sleep_lightning.ops.delta_rule_inputs import DeltaInputs, Layout, delta_inputs_backward, delta_inputs_forward
from sleep_lightning.ops.swiglu import swiglu_backward, swiglu_forward

ROWS = 1536
"""Rows worked on at a time where there are many: what lies between two products stays in the cache."""

_rows = Kernel("rows width threads bf16", "eps", "x rstd narrow dproduct dy dx")


def _slices(total: int, step: int) -> Iterator[slice]:
    """Parts of nearly equal size, none larger than ``step`` (which is at least 1)."""
    parts = max(1, -(-total // max(1, step)))
    bounds = [total * i // parts for i in range(parts + 1)]
    return (slice(a, b) for a, b in pairwise(bounds))


def _rstd(h_RE: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``1 / rms`` of each row, and the rows in the dtype of the products."""
    if h_RE.dtype != torch.float32:
        raise TypeError(f"hidden states are {h_RE.dtype}, not fp32")
    rstd_R = h_RE.new_empty(len(h_RE))
    narrow = None if dtype == h_RE.dtype else torch.empty_like(h_RE, dtype=dtype)
    _rows("rows_forward", rows=len(h_RE), width=h_RE.shape[1], eps=eps, x=h_RE, rstd=rstd_R, narrow=narrow)
    return rstd_R, h_RE if narrow is None else narrow


def _through_rms(h_RE: Tensor, rstd_R: Tensor, dproduct_RE: Tensor, dy_RE: Tensor | None, dh_RE: Tensor) -> None:
    """Into ``dh`` the gradient of h, from that of a product's input with rstd held fixed, and another one."""
    bf16 = dproduct_RE.dtype == torch.bfloat16
    given = {"x": h_RE, "rstd": rstd_R, "dproduct": dproduct_RE, "dy": dy_RE, "dx": dh_RE}
    _rows("rows_backward", rows=len(h_RE), width=h_RE.shape[1], bf16=bf16, **given)


def feed_forward(h: Tensor, into: SharedWeight, out_of: SharedWeight, eps: float, *, recompute: bool = False) -> Tensor:
    """``h + W_out SwiGLU(W_in norm(h))``.

    Args:
        h: ``[..., E]`` fp32.
        into: ``[2 F, E]``, gate and up, with the norm's weight.
        out_of: ``[E, F]``.
        eps: of the norm.
        recompute: make the projection, ``[..., 2 F]``, again in the backward instead of keeping it.
    """
    y: Tensor = _FeedForward.apply(h, into.anchor, out_of.anchor, into, out_of, eps, recompute)
    return y


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        _: Tensor,
        __: Tensor,
        into: SharedWeight,
        out_of: SharedWeight,
        eps: float,
        recompute: bool,
    ) -> Tensor:
        h_RE = h.contiguous().flatten(0, -2)
        rstd_R, x_RE = _rstd(h_RE, eps, into.weight_NK.dtype)
        x_RC, y = None if recompute else x_RE.new_empty(len(h_RE), len(into.weight_NK)), torch.empty_like(h_RE)
        for r in _slices(len(h_RE), ROWS):
            x_rC = into.product(x_RE[r], None if x_RC is None else x_RC[r])
            out_of.add_product(h_RE[r], swiglu_forward(x_rC, rstd_R[r]), y[r])
        ctx.save_for_backward(h_RE, rstd_R, x_RC)
        ctx.weights = into, out_of
        return y.view(h.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        h_RE, rstd_R, x_RC = ctx.saved_tensors
        into, out_of = ctx.weights
        dy_RE, dh_RE = dy.contiguous().view_as(h_RE), torch.empty_like(h_RE)
        for r in _slices(len(h_RE), ROWS):
            dy_r, h_r = (x[r].to(into.weight_NK.dtype) for x in (dy_RE, h_RE))
            x_rC = into.product(h_r) if x_RC is None else x_RC[r]
            y_RF = dy_r @ out_of.weight_NK  # its gradient, until the next line puts the SwiGLU itself there
            dx_RC = swiglu_backward(x_rC, rstd_R[r], y_RF)
            out_of.gradient.add(dy_r, y_RF)
            _through_rms(h_RE[r], rstd_R[r], into.backward(dx_RC, h_r), dy_RE[r], dh_RE[r])
        return dh_RE.view(dy.shape), None, None, None, None, None, None


def attend(
    h_BTE: Tensor, into: SharedWeight, out_of: SharedWeight, cos_TD: Tensor, sin_TD: Tensor, heads: int, eps: float
) -> Tensor:
    """``h + W_out attention(W_in norm(h))`` inside a short window.

    Args:
        h_BTE: fp32.
        into: ``[3 E, E]``, queries, keys and values, with the norm's weight.
        out_of: ``[E, E]``.
        cos_TD, sin_TD: RoPE in the half-split form, fp32.
        heads: H, ``E = H D``.
        eps: of the norm.
    """
    y: Tensor = _Attend.apply(h_BTE, into.anchor, out_of.anchor, into, out_of, cos_TD, sin_TD, heads, eps)
    return y


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        _: Tensor,
        __: Tensor,
        into: SharedWeight,
        out_of: SharedWeight,
        cos: Tensor,
        sin: Tensor,
        heads: int,
        eps: float,
    ) -> Tensor:
        h = h.contiguous()
        B, T, E = h.shape
        rstd_R, x_RE = _rstd(h.view(-1, E), eps, into.weight_NK.dtype)
        rstd_BT, x_BTE = rstd_R.view(B, T), x_RE.view(h.shape)
        qkv, o = x_BTE.new_empty(B, T, 3, heads, E // heads), x_BTE.new_empty(B, T, heads, E // heads)
        y, log_sums = torch.empty_like(h), h.new_empty(B, heads, T)
        for b in _slices(B, ROWS // T):
            into.product(x_BTE[b].flatten(0, 1), qkv[b].view(-1, 3 * E))
            window_attention_forward(qkv[b], cos, sin, o[b], log_sums[b], rstd_BT[b])
            out_of.add_product(h[b].flatten(0, 1), o[b].view(-1, E), y[b].flatten(0, 1))
        ctx.save_for_backward(h, rstd_BT, qkv, o, log_sums, cos, sin)
        ctx.weights = into, out_of
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        h, rstd_BT, qkv, o, log_sums, cos, sin = ctx.saved_tensors
        into, out_of = ctx.weights
        dy, dh, E = dy.contiguous(), torch.empty_like(h), h.shape[-1]
        for b in _slices(len(h), ROWS // h.shape[1]):
            dy_RE, h_RE = dy[b].flatten(0, 1), h[b].flatten(0, 1)
            d_o = out_of.backward(dy_RE.to(qkv.dtype), o[b].view(-1, E)).view_as(o[b])
            d_qkv = window_attention_backward(qkv[b], cos, sin, log_sums[b], d_o, rstd_BT[b])
            dx_RE = into.backward(d_qkv.view(-1, 3 * E), h_RE.to(qkv.dtype))
            _through_rms(h_RE, rstd_BT[b].flatten(), dx_RE, dy_RE, dh[b].flatten(0, 1))
        return dh, *(None,) * 8


def project(
    h_BTE: Tensor,
    into: SharedWeight,
    weight_JC: Tensor | None,
    A_log: Tensor | None,
    dt_bias: Tensor | None,
    layout: Layout,
    rows: slice,
    eps: float,
) -> DeltaInputs:
    """``delta_inputs`` of ``W_in norm(h)``; ``rest`` is still to be multiplied by ``rest_scale``.

    Args:
        h_BTE: fp32.
        into: rows q, k, v, a, b, rest, with the norm's weight.
        weight_JC, A_log, dt_bias, layout: as in ``delta_inputs``.
        rows: those of ``into`` that are wanted.
        eps: of the norm.
    """
    return DeltaInputs(*_Project.apply(h_BTE, into.anchor, weight_JC, A_log, dt_bias, into, layout, rows, eps))


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        _: Tensor,
        weight: Tensor | None,
        A_log: Tensor | None,
        dt_bias: Tensor | None,
        into: SharedWeight,
        layout: Layout,
        rows: slice,
        eps: float,
    ) -> tuple[Tensor | None, ...]:
        h = h.contiguous()
        h_RE, weight = h.view(-1, h.shape[-1]), None if weight is None else weight.contiguous()
        rstd_R, x_RE = _rstd(h_RE, eps, into.weight_NK.dtype)
        x_RC = x_RE.new_empty(len(h_RE), len(into.weight_NK[rows]))
        into.product(x_RE, x_RC, rows)
        rstd_BT, x_BTC = rstd_R.view(h.shape[:2]), x_RC.view(*h.shape[:2], -1)
        outputs = delta_inputs_forward(x_BTC, weight, A_log, dt_bias, layout, rstd_BT)
        ctx.save_for_backward(h, rstd_BT, x_BTC, weight, A_log, dt_bias)
        ctx.into, ctx.layout, ctx.rows = into, layout, rows
        ctx.mark_non_differentiable(rstd_BT, *((outputs.g,) if A_log is None else ()))
        return outputs.q, outputs.k, outputs.v, outputs.g, outputs.beta, outputs.rest, rstd_BT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d: Tensor | None) -> tuple[Tensor | None, ...]:
        h, rstd_BT, x_BTC, weight, A_log, dt_bias = ctx.saved_tensors
        d_inputs = DeltaInputs(*d[:6])  # type: ignore[arg-type]
        dx, *d_parameters = delta_inputs_backward(x_BTC, weight, A_log, dt_bias, ctx.layout, d_inputs, rstd_BT)
        h_RE, dh = h.view(-1, h.shape[-1]), torch.empty_like(h)
        dproduct_RE = ctx.into.backward(dx.flatten(0, 1), h_RE.to(dx.dtype), ctx.rows)
        _through_rms(h_RE, rstd_BT.flatten(), dproduct_RE, None, dh.view_as(h_RE))
        return dh, None, *d_parameters, None, None, None, None


def add_product(h: Tensor, x: Tensor, out_of: SharedWeight) -> Tensor:
    """``h + W x``: ``[..., E]`` fp32 and ``[..., K] -> [..., E]`` fp32."""
    y: Tensor = _AddProduct.apply(h, x, out_of.anchor, out_of)
    return y


class _AddProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, x: Tensor, _: Tensor, out_of: SharedWeight) -> Tensor:
        x_RK, y = x.flatten(0, -2), torch.empty_like(h, memory_format=torch.contiguous_format)
        out_of.add_product(h.flatten(0, -2), x_RK, y.view(-1, h.shape[-1]))
        ctx.save_for_backward(x_RK)
        ctx.out_of, ctx.shape = out_of, x.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x_RK,) = ctx.saved_tensors
        return dy, ctx.out_of.backward(dy.flatten(0, -2).to(x_RK.dtype), x_RK).view(ctx.shape), None, None
