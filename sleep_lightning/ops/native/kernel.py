"""Calls into the C++ kernels: one struct of sizes, numbers and pointers per family of functions."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from sleep_lightning.ops.native import build

DTYPES = (torch.float32, torch.bfloat16)


class Kernel:
    """Functions of the library that share an argument struct.

    Args:
        integers: its fields of type int64, in order.
        doubles: the fields after them.
        pointers: the fields after those.
    """

    def __init__(self, integers: str, doubles: str, pointers: str) -> None:
        class Arguments(ctypes.Structure):
            _fields_ = (
                *((name, ctypes.c_int64) for name in integers.split()),
                *((name, ctypes.c_double) for name in doubles.split()),
                *((name, ctypes.c_void_p) for name in pointers.split()),
            )

        self._arguments = Arguments

        self._functions: dict[str, Any] = {}

    def __call__(self, function: str, **values: Tensor | float | None) -> None:
        """Call ``function`` with the struct filled in by name; a field left out is zero, a tensor its address."""
        if function not in self._functions:
            self._functions[function] = getattr(build.load(), function)
        addresses = {name: x.data_ptr() if isinstance(x, Tensor) else x for name, x in values.items()}
        arguments = self._arguments(**addresses, threads=torch.get_num_threads())
        self._functions[function](ctypes.byref(arguments))


def usable(x: Tensor) -> bool:
    """Whether the kernels can take ``x``. Not in a compiled graph: the compiler fuses the torch code itself."""
    return (
        x.device.type == "cpu" and x.dtype in DTYPES and not torch.compiler.is_compiling() and build.why_not() is None
    )
