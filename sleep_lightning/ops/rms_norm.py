"""RMSNorm, and the gated RMSNorm behind the fast weights."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.ops.cpp.binding import DTYPES, Kernel, usable
from sleep_lightning.ops.dtype import at_least_fp32, autocasts
from sleep_lightning.ops.transforms import apply, first_derivative_only

BLOCK = 32  # rows whose contributions to the weight's gradient are summed first, BLOCK of pointwise.cpp

_norm = Kernel("rows heads width gate_stride threads x_bf16 y_bf16", "eps", "x gate weight y rstd dy dx dgate dweight")


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x / rms(x) * weight`` over the last dim, arithmetic in fp32.

    Args:
        x: ``[..., E]``.
        weight: ``[E]``.
        eps: added to the mean square.

    Returns:
        ``[..., E]``; under autocast in its dtype, since a projection comes next, else in the dtype of x.
    """
    dtype = torch.get_autocast_dtype(x.device.type) if autocasts(x.device.type) else x.dtype
    if dtype in DTYPES and weight.dtype == torch.float32 and usable(x):
        y: Tensor = apply(_RMSNorm, x.contiguous(), None, weight.contiguous(), eps, dtype)
        return y
    return F.rms_norm(at_least_fp32(x), weight.shape, at_least_fp32(weight), eps).to(dtype)


def gated_rms_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``RMSNorm(x) * SiLU(gate)``, each head normalised on its own.

    Args:
        x: ``[B, T, H, V]``.
        gate: ``[B, T, H V]``, any strides.
        weight: ``[V]``, shared by the heads.
        eps: added to the mean square.

    Returns:
        ``[B, T, H V]`` in the dtype of x.
    """
    if gate.dtype == x.dtype and weight.dtype == torch.float32 and usable(x):
        if gate.stride(-1) != 1 or gate.stride(0) != gate.shape[1] * gate.stride(1):
            gate = gate.contiguous()
        y: Tensor = apply(_RMSNorm, x.contiguous(), gate, weight.contiguous(), eps, x.dtype)
        return y.flatten(2)
    normed = F.rms_norm(at_least_fp32(x), weight.shape, at_least_fp32(weight), eps).to(x.dtype)
    return normed.flatten(2) * F.silu(gate)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        y = torch.empty_like(x, dtype=dtype)
        rstd = x.new_empty(x.shape[:-1], dtype=torch.float32)
        _norm("norm_forward", **_sizes(x, gate, dtype), eps=eps, x=x, gate=gate, weight=weight, y=y, rstd=rstd)
        ctx.save_for_backward(x, gate, weight, rstd)
        return y

    @staticmethod
    @first_derivative_only("the C++ RMSNorm")
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, weight, rstd = ctx.saved_tensors
        sizes, dy = _sizes(x, gate, dy.dtype), dy.contiguous()
        dx, dgate = torch.empty_like(x), None if gate is None else gate.new_empty(gate.shape)
        dweight = weight.new_empty(-(-sizes["rows"] // BLOCK), len(weight))
        given = {"x": x, "gate": gate, "weight": weight, "rstd": rstd, "dy": dy}
        _norm("norm_backward", **sizes, **given, dx=dx, dgate=dgate, dweight=dweight)
        return dx, dgate, dweight.sum(0), None, None


def _sizes(x: Tensor, gate: Tensor | None, y_dtype: torch.dtype) -> dict[str, int]:
    heads, width = 1 if gate is None else x.shape[-2], x.shape[-1]
    return {
        "rows": x.numel() // (heads * width),
        "heads": heads,
        "width": width,
        "gate_stride": 0 if gate is None else gate.stride(1),
        "x_bf16": x.dtype == torch.bfloat16,
        "y_bf16": y_dtype == torch.bfloat16,
    }
