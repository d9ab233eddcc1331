"""Where arithmetic must not be done in half precision."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])
META = "meta"


def at_least_fp32(x: Tensor) -> Tensor:
    """fp32 of a half-precision tensor; fp32 and float64 as they are."""
    return x.float() if x.element_size() < 4 else x


def autocasts(device: str) -> bool:
    """Whether autocast is on for a type of device; the meta device has none."""
    return device != META and torch.is_autocast_enabled(device)


def autocast(device: str, *, enabled: bool) -> AbstractContextManager[Any]:
    """bf16 autocast, or none, for a type of device; nothing on the meta device, which has none."""
    return nullcontext() if device == META else torch.autocast(device, torch.bfloat16, enabled=enabled)


def outside_autocast(method: F) -> F:
    """For the forward or backward of an autograd.Function that sees to dtypes itself: matrix products stay in them.

    Both need it: a backward inside the caller's autocast (as in Lightning's manual optimisation) is under it too.
    """

    @functools.wraps(method)
    def run(ctx: Any, *args: Any) -> Any:
        device = next(x.device.type for x in args if isinstance(x, Tensor))
        with autocast(device, enabled=False):
            return method(ctx, *args)

    return run  # type: ignore[return-value]
