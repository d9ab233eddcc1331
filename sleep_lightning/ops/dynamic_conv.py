"""SiLU of a causal depthwise convolution whose taps differ from token to token (Jet-Nemotron's)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.ops.transforms import apply, first_derivative_only, transformed


def dynamic_conv(x_BSC: Tensor, taps_BTJC: Tensor) -> Tensor:
    """``SiLU(sum_j taps[t, J - 1 - j] * x[S - T + t - j])`` with zeros before x.

    Args:
        x_BSC: inputs ``[B, S, C]``, any strides; the last T tokens, and the S - T >= 0 before them.
        taps_BTJC: taps of each token and channel ``[B, T, J, C]``, oldest token first.

    Returns:
        ``[B, T, C]`` in the dtype of x. Differentiable once in both, more often by ``torch.func``.
    """
    taps_BTJC = taps_BTJC.to(x_BSC.dtype)
    if transformed() or not x_BSC.numel() or not taps_BTJC.numel():
        S, (T, J) = x_BSC.shape[1], taps_BTJC.shape[1:3]
        past = (F.pad(x_BSC, (0, 0, j, 0))[:, S - T : S] * taps_BTJC[:, :, -1 - j] for j in range(J))
        return F.silu(sum(past, torch.zeros_like(x_BSC[:, S - T :])))
    return apply(_DynamicConv, x_BSC, taps_BTJC)


def _reaches(S: int, T: int, J: int) -> list[tuple[int, slice, slice]]:
    """Each tap that reaches an input: its distance j, the tokens that have an input so far back, and these inputs."""
    past = S - T
    first = {j: max(0, j - past) for j in range(min(J, S))}
    return [(j, slice(t, None), slice(past + t - j, S - j)) for j, t in first.items()]


class _DynamicConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor) -> Tensor:
        S, (T, J) = x.shape[1], taps.shape[1:3]
        (_, _, now), *earlier = _reaches(S, T, J)
        z = x[:, now] * taps[:, :, -1]
        for j, tokens, inputs in earlier:
            z[:, tokens].addcmul_(x[:, inputs], taps[:, tokens, -1 - j])
        ctx.save_for_backward(x, taps, z)
        return torch.nn.functional.silu(z)

    @staticmethod
    @first_derivative_only("the dynamic convolution")
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, taps, z = ctx.saved_tensors
        S, (T, J) = x.shape[1], taps.shape[1:3]
        dz = torch.ops.aten.silu_backward(dy, z)
        dx, d_taps = torch.zeros_like(x), torch.zeros_like(taps)
        for j, tokens, inputs in _reaches(S, T, J):
            dx[:, inputs].addcmul_(dz[:, tokens], taps[:, tokens, -1 - j])
            d_taps[:, tokens, -1 - j].addcmul_(dz[:, tokens], x[:, inputs])
        return dx, d_taps
