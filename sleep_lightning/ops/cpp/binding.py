"""Calls into the C++ kernels: one struct of sizes, numbers and pointers per family of functions."""

import struct
from typing import Any

import torch
from torch import Tensor

from sleep_lightning.ops.cpp import build
from sleep_lightning.ops.transforms import on_cpu, transformed

DTYPES = (torch.float32, torch.bfloat16)


class Kernel:
    """Functions of the library that share an argument struct.

    Args:
        integers: its fields of type int64, in order.
        doubles: the fields after them.
        pointers: the fields after those.
    """

    def __init__(self, integers: str, doubles: str, pointers: str) -> None:
        names = [*integers.split(), *doubles.split(), *pointers.split()]
        self._index = {name: i for i, name in enumerate(names)}
        # all fields have eight bytes: nothing is padded, and packing is several times faster than a ctypes.Structure
        self._struct = struct.Struct(f"{len(integers.split())}q{len(doubles.split())}d{len(pointers.split())}P")
        self._functions: dict[str, Any] = {}

    def __call__(self, function: str, **values: Tensor | float | None) -> None:
        """Call ``function`` with the struct filled in by name; a field left out is zero, a tensor its address."""
        if function not in self._functions:
            self._functions[function] = getattr(build.load(), function)
        fields: list[float] = [0] * len(self._index)
        fields[self._index["threads"]] = torch.get_num_threads()
        for name, x in values.items():
            if x is not None:
                fields[self._index[name]] = x.data_ptr() if isinstance(x, Tensor) else x
        self._functions[function](self._struct.pack(*fields))


def usable(x: Tensor) -> bool:
    """Whether the kernels can take ``x``: not without elements, not under ``torch.func``, and not in a compiled graph,
    as the compiler fuses the torch code itself."""
    return (
        on_cpu(x)
        and x.dtype in DTYPES
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not transformed()
        and build.why_not() is None
    )
