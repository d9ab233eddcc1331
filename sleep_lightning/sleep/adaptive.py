"""Adaptive sleep: each sequence leaves the loop once a pass has changed its memory little.

The passes of a batch run on the rows that are left; those that are done wait for the coda, if there is one.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sleep_lightning.model import Memory


def change(before: Memory, after: Memory) -> Tensor:
    """``|S' - S| / |S'|`` over the fast weights of all layers, of which there are some, ``[B]``; 0 where both are 0."""
    moved = sum((b - a).flatten(1).square().sum(1) for a, b in zip(before.states, after.states, strict=True))
    norm = sum(b.flatten(1).square().sum(1) for b in after.states)
    assert isinstance(moved, Tensor) and isinstance(norm, Tensor)
    return (moved / norm.clamp(min=torch.finfo(norm.dtype).tiny)).sqrt()


@dataclass
class Rows:
    """The rows of a batch that are still in the loop.

    Attributes:
        left: their indices ``[B left]``.
        done: indices, hidden states and memory of those that have left it.
    """

    left: Tensor
    done: list[tuple[Tensor, Tensor, Memory]] = field(default_factory=list)

    def leave(self, settled: Tensor, h: Tensor, memory: Memory) -> Tensor:
        """Put the rows away that are ``settled`` (bool ``[B left]``); returns the positions of the others."""
        stay, go = (~settled).nonzero()[:, 0], settled.nonzero()[:, 0]
        if len(go):
            self.done.append((self.left[go], h[go], memory.map(lambda x: x[go])))
            self.left = self.left[stay]
        return stay

    def together(self, h: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Hidden states and memory of all rows, in their first order."""
        parts = [*self.done, (self.left, h, memory)]
        order = torch.cat([rows for rows, _, _ in parts]).argsort()
        tensors = zip(*([h, *m.named_tensors().values()] for _, h, m in parts), strict=True)
        whole = iter([torch.cat(xs)[order] for xs in tensors])
        return next(whole), memory.map(lambda _: next(whole))
