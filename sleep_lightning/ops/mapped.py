"""Tensors outside the heap."""

import mmap
import weakref
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
        own = torch.frombuffer(_mappings.take(x.nbytes), dtype=x.dtype, count=x.numel())
        return own.view(x.shape).copy_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return dy


class _Mappings:
    """New mappings, or those that tensors of the same size have left."""

    def __init__(self) -> None:
        self.reused = False
        self.left: dict[int, list[mmap.mmap]] = {}

    def take(self, nbytes: int) -> memoryview:
        """A mapping, in use for as long as what is returned lives."""
        left = self.left.get(nbytes)
        if left:
            mapping = left.pop()
        else:
            self.left.clear()  # steps have other sizes now
            mapping = mmap.mmap(-1, nbytes)
        view = memoryview(mapping)
        if self.reused:
            weakref.finalize(view, self._leave, nbytes, mapping).atexit = False
        return view

    def _leave(self, nbytes: int, mapping: mmap.mmap) -> None:
        if self.reused:
            self.left.setdefault(nbytes, []).append(mapping)


_mappings = _Mappings()


def reuse_mappings(wanted: bool) -> None:
    """Whether a mapping whose tensor is gone waits for the next tensor of its size, or goes back to the system at once
    (as it does from the start): a setting of the process."""
    _mappings.reused = wanted
    _mappings.left.clear()
