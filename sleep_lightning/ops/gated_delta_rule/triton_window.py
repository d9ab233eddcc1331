"""The gated delta rule on short windows in one Triton kernel each way, for CUDA.

A window too short to fill the many kernels of a chunk-parallel implementation costs mostly their launches. Here each
(batch, head) is one program that scans its window with the state on chip. Triton and the kernels are imported at the
first call. Both directions are custom operators: opaque to torch.compile, static shapes, no host synchronisation.
"""

import functools
import importlib.util
import os

import torch
from torch import Tensor

from sleep_lightning.machine.compiled_code import keep_compiled_code_private
from sleep_lightning.ops.dispatch import why_not_transformed
from sleep_lightning.ops.gated_delta_rule.reference import reference_gated_delta_rule
from sleep_lightning.ops.gated_delta_rule.triton_window_ops import CHUNK, precision, window_gated_delta_rule
from sleep_lightning.ops.self_test import FP32_TOLERANCE, TF32_TOLERANCE, self_test, warned

MAX_T = 64
MAX_K = 128


def why_not_triton(k: Tensor) -> str | None:
    """Why the kernel cannot take keys ``k`` ``[B, T, H, K]``; None if it can.

    The first keys of a kind (device, dtype, K) run the self-test; should it fail, a RuntimeWarning says so, once.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if reason := why_not_transformed(k):
        return reason
    if k.device.type != "cuda" and not interpreted:
        return f"the Triton kernel needs a CUDA device, the tensors are on {k.device.type}"
    if k.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the Triton kernel has no {k.dtype}"
    if interpreted and k.dtype == torch.bfloat16:
        return "Triton's interpreter gets bfloat16 wrong"
    if k.shape[1] > MAX_T:
        return f"the Triton kernel takes at most {MAX_T} tokens, not {k.shape[1]}"
    if k.shape[-1] > MAX_K:
        return f"the Triton kernel takes a key dim of at most {MAX_K}, not {k.shape[-1]}"
    return _verdict(k.device, k.dtype, int(k.shape[-1]))


def triton_gated_delta_rule(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor | None, Tensor]:
    """Same contract as ``reference_gated_delta_rule``, on CUDA and differentiable once; summed in fp32, and multiplied
    as ``precision`` says.

    q, k, v, g and beta are read through their strides; T is at most ``MAX_T`` and K at most ``MAX_K``.
    """
    B, _, H, K = k.shape
    if initial_state is None:
        initial_state = k.new_zeros(B, H, K, v.shape[-1], dtype=torch.float32)
    o, final_state, _, _ = window_gated_delta_rule(q, k, v, g, beta, initial_state.float(), scale)
    return (None if q is None else o), final_state


def _verdict(device: torch.device, dtype: torch.dtype, K: int) -> str | None:
    return _cached_verdict(device, dtype, K, precision(dtype))


# A constant to torch.compile, not code to trace. torch.compiler.assume_constant_result does only this, but it
# imports dynamo, and with it Triton, to do it: seconds.
setattr(_verdict, "_dynamo_marked_constant", True)  # noqa: B010


@functools.cache
def _cached_verdict(device: torch.device, dtype: torch.dtype, K: int, multiply: str) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    keep_compiled_code_private()
    tolerance = FP32_TOLERANCE if multiply == "ieee" else TF32_TOLERANCE
    fault = self_test(
        triton_gated_delta_rule, reference_gated_delta_rule, device, dtype, K, tokens=CHUNK + 3, tolerance=tolerance
    )
    return warned("the Triton kernel", fault, device, dtype, K)
