"""SiLU of a causal depthwise convolution over a window, without padding or concatenation."""

from typing import Any

import torch
from torch import Tensor

from sleep_lightning.ops.dynamic_conv import dynamic_conv
from sleep_lightning.ops.transforms import apply, first_derivative_only, transformed


def short_conv(x_BTC: Tensor, weight_KC: Tensor) -> Tensor:
    """``SiLU(sum_j weight[K - 1 - j] * x[t - j])`` with zeros before the window.

    Args:
        x_BTC: inputs ``[B, T, C]``, any strides.
        weight_KC: taps, oldest token first, ``[K, C]``.

    Returns:
        ``[B, T, C]`` in the dtype of x. Differentiable once in both, more often by ``torch.func``.
    """
    if transformed():
        return dynamic_conv(x_BTC, weight_KC.expand(*x_BTC.shape[:2], -1, -1))
    return apply(_ShortConv, x_BTC, weight_KC)


class _ShortConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        taps, T = weight.to(x.dtype), x.shape[1]
        z = x * taps[-1]
        for j in range(1, min(len(taps), T)):
            z[:, j:].addcmul_(x[:, : T - j], taps[-1 - j])
        ctx.save_for_backward(x, weight, z)
        return torch.nn.functional.silu(z)

    @staticmethod
    @first_derivative_only("the short convolution")
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, z = ctx.saved_tensors
        taps, T = weight.to(x.dtype), x.shape[1]
        dz = torch.ops.aten.silu_backward(dy, z)
        dx = dz * taps[-1]
        dw = torch.zeros_like(weight)
        dw[-1] = (dz * x).sum((0, 1))
        for j in range(1, min(len(taps), T)):
            dx[:, : T - j].addcmul_(dz[:, j:], taps[-1 - j])
            dw[-1 - j] = (dz[:, j:] * x[:, : T - j]).sum((0, 1))
        return dx, dw
