"""What keeps flash-linear-attention's kernels from running, whichever rule they are of."""

import functools

import torch
from torch import Tensor

from sleep_lightning.machine.compiled_code import keep_compiled_code_private
from sleep_lightning.ops.dispatch import Kernel, why_not_transformed
from sleep_lightning.ops.one_token import why_not_one_token
from sleep_lightning.ops.self_test import TF32_TOLERANCE, self_test, warned

LEAST_LOG_DECAY = -100.0
"""fla takes differences of running sums in fp32: of -inf they are NaN, and a larger decay costs them digits."""
CASE_TOKENS = 70
"""Tokens of the self-test's case: more than a chunk of 64."""


def why_not_fla(k: Tensor) -> str | None:
    """Why fla's kernels cannot take keys ``k`` ``[B, T, H, K]``; None if they can."""
    if reason := why_not_transformed(k):
        return reason
    if k.device.type != "cuda":
        return f"fla's kernels need a CUDA device, the tensors are on {k.device.type}"
    if k.dtype == torch.float64:
        return "fla's kernels have no float64"
    if k.shape[-1] > 256:
        return f"fla's kernels take a key dim of at most 256, not {k.shape[-1]}"
    if torch.compiler.is_compiling():
        return "fla's kernels would break a compiled pass into pieces"
    return None


def why_not_fla_step(k: Tensor) -> str | None:
    """Why fla's recurrent kernels cannot take keys ``k`` ``[B, 1, H, K]`` of a token that is decoded."""
    return why_not_fla(k) or why_not_one_token(k)


def fla_fault(name: str, kernel: Kernel, reference: Kernel, k: Tensor, *, gradients: bool = True) -> str | None:
    """What is wrong with one of fla's kernels, found out once for each kind of keys and warned of; None if nothing is.

    Args:
        name: of the kernel, for the warning.
        kernel: fla's.
        reference: the rule's definition.
        k: keys ``[B, T, H, K]``. Their device, dtype, K and H count: for each H the kernels tune themselves, for a
            minute or more.
        gradients: False for a kernel that has none.
    """
    return _cached_fault(name, kernel, reference, k.device, k.dtype, int(k.shape[-2]), int(k.shape[-1]), gradients)


@functools.cache
def _cached_fault(
    name: str,
    kernel: Kernel,
    reference: Kernel,
    device: torch.device,
    dtype: torch.dtype,
    H: int,
    K: int,
    gradients: bool,
) -> str | None:
    keep_compiled_code_private()
    case = {"tokens": CASE_TOKENS, "heads": H, "tolerance": TF32_TOLERANCE, "gradients": gradients}
    fault = self_test(kernel, reference, device, dtype, K, **case)  # type: ignore[arg-type]
    return warned(name, fault, device, dtype, K)
