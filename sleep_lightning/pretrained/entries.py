"""How the tensors of a published format become those of ``HybridLM``, and back, to the bit.

Shape suffixes: H heads, D head dim, E d_model, C channels, J taps, R hidden channels of the taps' generator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]
EVERY = slice(None)


@dataclass(frozen=True)
class Layout:
    """``join``: published tensors -> ours; ``split``: ours, and the published shapes -> the published tensors."""

    join: Callable[[Sequence[Tensor]], Tensor]
    split: Callable[[Tensor, Sequence[Shape]], Sequence[Tensor]]


ROWS = Layout(
    join=lambda parts: parts[0] if len(parts) == 1 else torch.cat(list(parts)),
    split=lambda ours, shapes: ours.split([shape[0] for shape in shapes]),
)
"""One below the other."""
TAPS = Layout(
    join=lambda parts: parts[0][:, 0].T,  # [C, 1, J], oldest tap first as ours
    split=lambda ours, shapes: [ours.T[:, None]],
)
"""The weight of an ``nn.Conv1d``."""


def generated_taps(taps: int) -> Layout:
    """Rows (or numbers) of a taps' generator: published ``[C J, ...]``, ours ``[J C, ...]``."""
    return Layout(
        join=lambda parts: parts[0].unflatten(0, (-1, taps)).transpose(0, 1).flatten(0, 1),
        split=lambda ours, shapes: [ours.unflatten(0, (taps, -1)).transpose(0, 1).flatten(0, 1)],
    )


def gated_queries(head_dim: int) -> Layout:
    """Published: per head queries, then gate ``[H 2 D, E]``; keys; values. Ours: queries, keys, values, gate."""

    def join(parts: Sequence[Tensor]) -> Tensor:
        queries, gate = parts[0].unflatten(0, (-1, 2, head_dim)).unbind(1)
        return torch.cat((queries.flatten(0, 1), *parts[1:], gate.flatten(0, 1)))

    def split(ours: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
        rows = shapes[0][0] // 2
        queries, *rest, gate = ours.split([rows, *(shape[0] for shape in shapes[1:]), rows])
        heads = (x.unflatten(0, (-1, head_dim)) for x in (queries, gate))
        return [torch.stack(list(heads), 1).flatten(0, 2), *rest]

    return Layout(join, split)


@dataclass(frozen=True)
class Entry:
    """A parameter of ours and the published tensors that it consists of.

    Attributes:
        ours: its name in ``HybridLM``.
        theirs: their names and shapes, in the order of ``layout``.
        layout: how.
    """

    ours: str
    theirs: dict[str, Shape]
    layout: Layout = ROWS

    def read(self, read: Callable[[str, slice], Tensor], rows: slice = EVERY) -> Tensor:
        """Some rows of the parameter. Only they are read, unless the layout mixes rows.

        Args:
            read: gives rows of a published tensor.
            rows: which.
        """
        if self.layout is not ROWS or rows == EVERY:
            return self.layout.join([read(name, EVERY) for name in self.theirs])[rows]
        pieces, start = [], 0
        for name, shape in self.theirs.items():
            first, last = max(rows.start - start, 0), min(rows.stop - start, shape[0])
            if first < last:
                pieces.append(read(name, slice(first, last)))
            start += shape[0]
        return ROWS.join(pieces)
