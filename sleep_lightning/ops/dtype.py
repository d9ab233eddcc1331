"""Where arithmetic must not be done in half precision."""

from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """fp32 of a half-precision tensor; fp32 and float64 as they are."""
    return x.float() if x.element_size() < 4 else x
