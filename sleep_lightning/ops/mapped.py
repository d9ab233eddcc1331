"""Tensors outside the heap."""

import mmap
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def mapped(x: Tensor) -> Tensor:
    """A copy of ``x`` in a memory mapping of its own, on CPU; elsewhere, and in a compiled graph, ``x`` itself.

    What stays while much comes and goes (the inputs of checkpointed passes) would lie between the blocks that are
    freed and keep them from being used again as larger ones: the heap grows to a multiple of what is alive.
    Gradients pass through.
    """
    if x.device.type != "cpu" or not x.numel() or torch.compiler.is_compiling():
        return x
    y: Tensor = _Mapped.apply(x)
    return y


class _Mapped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        own = torch.frombuffer(mmap.mmap(-1, x.nbytes), dtype=x.dtype, count=x.numel())
        return own.view(x.shape).copy_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return dy
