"""Functions of whole matrices whose rows are sharded: each matrix is gathered to one rank, which applies them."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(x: Any) -> "TypeGuard[DTensor]":
    """Whether it is a DTensor; nothing is before somebody has imported them, which takes longer than a first step."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def local(x: Tensor) -> Tensor:
    """The rows of a sharded tensor that this rank keeps, as memory; other tensors as they are."""
    return x.to_local() if is_sharded(x) else x


def share(p: nn.Parameter) -> tuple[Tensor, slice]:
    """What this rank keeps of a parameter: memory, and which rows; of one that is not sharded, all."""
    if not is_sharded(p):
        return p, slice(None)
    group = p.device_mesh.get_group()
    rows = _rows(p.shape[0], group.size())
    start = sum(rows[: group.rank()])
    return p.to_local(), slice(start, start + rows[group.rank()])


def owners(costs: Sequence[float], size: int) -> list[int]:
    """The rank, of ``size``, that does each piece of work: the costliest first, each to the least loaded rank."""
    loads, chosen = [0.0] * size, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        chosen[i] = loads.index(min(loads))
        loads[chosen[i]] += costs[i]
    return chosen


@torch.no_grad()
def map_whole(
    f: Callable[[list[Tensor], list[int]], list[Tensor]], shards: Sequence[Tensor], like: "Sequence[DTensor]"
) -> list[Tensor]:
    """Apply a function to whole matrices, each on one rank, in two exchanges: rows to the owner, results back.

    Args:
        f: takes whole matrices and their numbers in ``like``; returns as many of the same shapes.
        shards: this rank's rows of each matrix.
        like: parameters that are sharded by rows in the same way.

    Returns:
        This rank's rows of the results.
    """
    group = like[0].device_mesh.get_group()
    size, rank = group.size(), group.rank()
    owner = owners([p.numel() * min(p.shape) for p in like], size)
    by_owner = [[i for i in range(len(like)) if owner[i] == r] for r in range(size)]
    mine = by_owner[rank]
    rows = [_rows(p.shape[0], size) for p in like]  # [matrix][rank]
    outgoing = [[shards[i].flatten() for i in theirs] for theirs in by_owner]
    arriving = [[rows[i][r] * like[i].shape[1] for i in mine] for r in range(size)]
    pieces = _exchange(outgoing, arriving, group, shards[0])
    whole = [torch.cat(parts).view(like[i].shape) for i, parts in zip(mine, zip(*pieces, strict=True), strict=True)]
    results = [result.split(rows[i]) for i, result in zip(mine, f(whole, mine), strict=True)] if mine else []
    returning = [[result[r].flatten() for result in results] for r in range(size)]
    returned = _exchange(returning, [[x.numel() for x in out] for out in outgoing], group, shards[0])
    own = {i: x for theirs, xs in zip(by_owner, returned, strict=True) for i, x in zip(theirs, xs, strict=True)}
    return [own[i].view_as(shard) for i, shard in enumerate(shards)]


def _rows(total: int, size: int) -> list[int]:
    """Rows that each rank keeps of a matrix: as ``torch.chunk`` cuts."""
    ends = [min(-(-total // size) * (r + 1), total) for r in range(size)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _exchange(
    outgoing: list[list[Tensor]], arriving: list[list[int]], group: ProcessGroup, like: Tensor
) -> list[list[Tensor]]:
    """Send each rank its list of vectors; returns what each has sent here, as vectors of the expected lengths."""
    sent = [sum(x.numel() for x in xs) for xs in outgoing]
    expected = [sum(lengths) for lengths in arriving]
    flat = torch.cat([like.new_empty(0), *(x for xs in outgoing for x in xs)])
    received = like.new_empty(sum(expected))
    distributed.all_to_all_single(received, flat, expected, sent, group=group)
    parts = zip(received.split(expected), arriving, strict=True)
    return [list(part.split(lengths)) if lengths else [] for part, lengths in parts]
