"""Everything that crosses a window boundary: fast weights, and under sliding eviction the last keys and values."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from os import PathLike
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """State of every fast-weight layer, first to last (paper section 3.1: S).

    Attributes:
        states: per layer ``[B, H, K, V]``, fp32.
        conv: per layer the last ``conv_size - 1`` inputs of its short convolution
            ``[B, conv_size - 1, channels]``; empty when convolutions restart at every pass.
        kv: per attention layer keys (not yet rotated) and values of the last L - 1 tokens
            ``[B, L - 1, 2, heads, head dim]``; empty under hard eviction.
        present: one tensor ``[B, L - 1]``, 1 where ``kv`` holds a token and 0 where it is empty; empty as kv is.
        summaries: under compaction one tensor ``[B, m x windows so far, d_model]``; else empty.
    """

    states: tuple[Tensor, ...]
    conv: tuple[Tensor, ...] = ()
    kv: tuple[Tensor, ...] = ()
    present: tuple[Tensor, ...] = ()
    summaries: tuple[Tensor, ...] = ()

    def map(self, f: Callable[[Tensor], Tensor]) -> Self:
        """Apply ``f`` to every tensor."""
        return type(self)(*(tuple(map(f, getattr(self, part.name))) for part in fields(self)))

    def detach(self) -> Self:
        """Same values, detached from the graph, for truncated BPTT."""
        return self.map(Tensor.detach)

    def clone(self) -> Self:
        """An independent copy (a snapshot to roll back to)."""
        return self.map(Tensor.clone)

    def zeroed(self) -> Self:
        """The state before the first window."""
        return self.map(torch.zeros_like)

    def to(self, device: torch.device | str) -> Self:
        """Moved to a device; dtypes stay."""
        return self.map(lambda x: x.to(device))

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(x.nbytes for x in self.named_tensors().values())

    def named_tensors(self) -> dict[str, Tensor]:
        """Every tensor by ``field.index``."""
        return {f"{part.name}.{i}": x for part in fields(self) for i, x in enumerate(getattr(self, part.name))}

    def save(self, path: str | PathLike[str]) -> None:
        """Write a safetensors file."""
        save_file({name: x.detach().contiguous() for name, x in self.named_tensors().items()}, path)

    @classmethod
    def load(cls, path: str | PathLike[str], device: str = "cpu") -> Self:
        """Read a file written by ``save``. Raises ValueError if it is not one."""
        try:
            tensors = load_file(path, device=device)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a memory file ({error}); give a file written by Memory.save") from error
        counts = {part.name: sum(name.startswith(f"{part.name}.") for name in tensors) for part in fields(cls)}
        names = {part: [f"{part}.{i}" for i in range(n)] for part, n in counts.items()}
        if tensors.keys() != {name for part in names.values() for name in part} or not tensors:
            raise ValueError(f"{path} holds {sorted(tensors)}, not a memory; give a file written by Memory.save")
        return cls(*(tuple(tensors[name] for name in part) for part in names.values()))
