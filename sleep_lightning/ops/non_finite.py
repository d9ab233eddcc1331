"""Tokens with a NaN or an infinity, kept from the tokens before them.

A kernel multiplies triangular matrices as whole tiles: ``0 * NaN`` carries a NaN back to earlier tokens.

Shape suffixes: B batch, T tokens, H heads.
"""

import functools
import math

import torch
from torch import Tensor

from sleep_lightning.ops.dispatch import Kernel
from sleep_lightning.ops.transforms import on_cpu, transformed


def maybe_non_finite(*tensors: Tensor) -> bool:
    """Whether ``tensors`` may hold a NaN or an infinity; False is certain, as a finite sum has finite terms.

    It is asked on CPU only: the answer would stall a GPU or break a graph.
    """
    if not on_cpu(tensors[0]) or torch.compiler.is_compiling() or transformed():
        return True
    return not all(math.isfinite(x.detach().sum().item()) for x in tensors)


def spoiled(*tensors: Tensor) -> Tensor:
    """``[B, T, H]`` of tensors ``[B, T, H, ...]``: True from the first token on of which a number is not finite."""
    finite = [x.detach().isfinite().reshape(*x.shape[:3], -1).all(-1) for x in tensors]
    return (~torch.stack(finite).all(0)).cumsum(1) > 0


def without(x: Tensor, spoiled_BTH: Tensor) -> Tensor:
    """``x`` ``[B, T, H, ...]`` with zeros for the spoiled tokens."""
    return x.masked_fill(spoiled_BTH.reshape(*spoiled_BTH.shape, *(1,) * (x.dim() - 3)), 0)


def nan_where(spoiled: Tensor, like: Tensor) -> Tensor:
    """A factor in the dtype of ``like``: NaN, in the backward too, where ``spoiled``, else 1."""
    return torch.where(spoiled, torch.nan, 1.0).to(like.dtype)


def causal(kernel: Kernel) -> Kernel:
    """``kernel`` of which no output depends on later tokens, not even on NaN: it is given zeros in their place."""

    @functools.wraps(kernel)
    def run(
        q: Tensor | None,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        beta: Tensor,
        initial_state: Tensor | None,
        scale: float,
    ) -> tuple[Tensor | None, Tensor]:
        decay = g.detach().exp()  # -inf is a log decay like others
        if not maybe_non_finite(k, v, beta, decay):
            return kernel(q, k, v, g, beta, initial_state, scale)
        spoiled_BTH = spoiled(k, v, beta, decay)
        k, v, g, beta = (without(x, spoiled_BTH) for x in (k, v, g, beta))
        o, state = kernel(q, k, v, g, beta, initial_state, scale)
        state = state * nan_where(spoiled_BTH[:, -1, :, None, None], state)
        return None if o is None else o * nan_where(spoiled_BTH[..., None], o), state

    return run
