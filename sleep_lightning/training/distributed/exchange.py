"""What ranks exchange in a training step and at a validation; with a single process, nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, distributed

from sleep_lightning.tasks import TaskBatch

if TYPE_CHECKING:
    import lightning.pytorch as pl

T = TypeVar("T")


@dataclass(frozen=True)
class Exchange:
    """A rank's view of the others."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of(cls, trainer: "pl.Trainer") -> "Exchange":
        """Between the ranks of a trainer."""
        return cls(trainer.global_rank, trainer.world_size)

    def share(self, batch: TaskBatch) -> TaskBatch:
        """The rows of a batch that are this rank's; the shares of all ranks, in order, are the batch."""
        rows = len(batch.tokens)
        return batch.rows(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def gather(self, content: list[T]) -> list[T]:
        """The lists of all ranks interleaved: their first items, their second, ..., each in the order of ranks."""
        if self.size == 1:
            return content
        contents: list[list[T]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(contents, content)
        return [x for of_all in zip(*contents, strict=True) for x in of_all]


@torch.no_grad()
def broadcast_from_rank_zero(parameters: list[torch.nn.Parameter]) -> None:
    """Give all ranks the weights of rank zero: a seed does not give the same bits on every kind of machine."""
    flat = torch.cat([p.flatten() for p in parameters])
    distributed.broadcast(flat, src=0)
    for p, weights in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.copy_(weights.view_as(p))


@torch.no_grad()
def all_reduce_gradients(parameters: list[torch.nn.Parameter], extra: Tensor) -> Tensor:
    """Replace every gradient by its sum over ranks, in one collective that ``extra`` travels in as well.

    Args:
        parameters: the same ones in all ranks; those that no rank has a gradient of keep none.
        extra: a few numbers ``[n]``.

    Returns:
        The sum of ``extra`` over ranks.
    """
    learning = [p for p in parameters if p.requires_grad]
    used = extra.new_tensor([p.grad is not None for p in learning], dtype=extra.dtype)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
    flat = torch.cat([x.flatten().to(learning[0].dtype) for x in (*gradients, used, extra)])
    distributed.all_reduce(flat)
    *sums, used, extra = flat.split([*(p.numel() for p in learning), len(learning), len(extra)])
    for i, (p, gradient, total) in enumerate(zip(learning, gradients, sums, strict=True)):
        gradient.copy_(total.view_as(gradient))  # in place: a CUDA graph knows only its own tensors
        if p.grad is None and used[i] > 0:
            p.grad = gradient
    return extra
