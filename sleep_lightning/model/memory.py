"""Fast weights: the only thing that crosses a window boundary under hard eviction."""

from collections.abc import Callable
from dataclasses import dataclass
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
    """

    states: tuple[Tensor, ...]
    conv: tuple[Tensor, ...] = ()

    def map(self, f: Callable[[Tensor], Tensor]) -> Self:
        """Apply ``f`` to every tensor."""
        return type(self)(tuple(map(f, self.states)), tuple(map(f, self.conv)))

    def detach(self) -> Self:
        """Same values, cut off from the graph: where truncated BPTT stops."""
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
        """Size of all tensors in bytes: what a user pays to keep a session."""
        return sum(x.nbytes for x in (*self.states, *self.conv))

    def save(self, path: str | PathLike[str]) -> None:
        """Write a safetensors file."""
        tensors = {f"states.{i}": x for i, x in enumerate(self.states)}
        tensors |= {f"conv.{i}": x for i, x in enumerate(self.conv)}
        save_file({name: x.detach().contiguous() for name, x in tensors.items()}, path)

    @classmethod
    def load(cls, path: str | PathLike[str], device: str = "cpu") -> Self:
        """Read a file written by ``save``. Raises ValueError if it is not one."""
        try:
            tensors = load_file(path, device=device)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a memory file ({error}); give a file written by Memory.save") from error
        n_conv = sum(name.startswith("conv.") for name in tensors)
        states = {f"states.{i}" for i in range(len(tensors) - n_conv)}
        if tensors.keys() != states | {f"conv.{i}" for i in range(n_conv)}:
            raise ValueError(f"{path} holds {sorted(tensors)}, not a memory; give a file written by Memory.save")
        return cls(
            tuple(tensors[f"states.{i}"] for i in range(len(states))),
            tuple(tensors[f"conv.{i}"] for i in range(n_conv)),
        )
