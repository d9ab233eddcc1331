"""The precision of fp32 matrix products, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fp32_matmul(mode: str) -> Iterator[None]:
    """Set torch's fp32 matmul precision inside the block: highest, or high (TF32 on GPUs and in the Triton kernels)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(mode)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
