"""The gate of a SwiGLU on its fused projection."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.ops.cpp.binding import Kernel, usable
from sleep_lightning.ops.transforms import apply, first_derivative_only

_swiglu = Kernel("rows width threads bf16", "", "x y dy dx")


def swiglu(x: Tensor) -> Tensor:
    """``SiLU(gate) * up`` of gate and up side by side, ``[..., 2 F] -> [..., F]``, in the dtype of x."""
    if usable(x):
        y: Tensor = apply(_SwiGLU, x)
        return y
    gate, up = x.chunk(2, -1)
    return F.silu(gate) * up


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        x_RC = x.contiguous().flatten(0, -2)
        y_RF = x_RC.new_empty(len(x_RC), x_RC.shape[1] // 2)
        _swiglu("swiglu_forward", **_sizes(x_RC), x=x_RC, y=y_RF)
        return y_RF.view(*x.shape[:-1], x.shape[-1] // 2)

    @staticmethod
    @first_derivative_only("the C++ SwiGLU")
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        x_RC = ctx.saved_tensors[0].contiguous().flatten(0, -2)
        dx_RC = torch.empty_like(x_RC)
        _swiglu("swiglu_backward", **_sizes(x_RC), x=x_RC, dy=dy.contiguous().flatten(0, -2), dx=dx_RC)
        return dx_RC.view(*dy.shape[:-1], 2 * dy.shape[-1])


def _sizes(x_RC: Tensor) -> dict[str, int]:
    return {"rows": len(x_RC), "width": x_RC.shape[1] // 2, "bf16": x_RC.dtype == torch.bfloat16}
