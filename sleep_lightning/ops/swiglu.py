"""The gate of a SwiGLU on its fused projection."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sleep_lightning.ops.native.kernel import Kernel, usable

_swiglu = Kernel("rows width threads bf16", "", "x y dy dx")


def swiglu(x: Tensor) -> Tensor:
    """``SiLU(gate) * up`` of gate and up side by side, ``[..., 2 F] -> [..., F]``, in the dtype of x."""
    if usable(x):
        y: Tensor = _SwiGLU.apply(x)
        return y
    gate, up = x.chunk(2, -1)
    return F.silu(gate) * up


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
        _swiglu("swiglu_forward", **_sizes(y), x=x, y=y)
        ctx.save_for_backward(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dy, dx = dy.contiguous(), torch.empty_like(x)
        _swiglu("swiglu_backward", **_sizes(dy), x=x, dy=dy, dx=dx)
        return dx


def _sizes(y: Tensor) -> dict[str, int]:
    return {"rows": y.numel() // max(1, y.shape[-1]), "width": y.shape[-1], "bf16": y.dtype == torch.bfloat16}
