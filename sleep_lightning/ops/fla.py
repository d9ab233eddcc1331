"""flash-linear-attention's Triton kernels for CUDA, by chunk and by token, and what keeps them from running.

fla is imported at the first call.
"""

import functools
from importlib import import_module

import torch
from torch import Tensor

from sleep_lightning.machine.compiled_code import keep_compiled_code_private
from sleep_lightning.ops.dispatch import Backend, Kernel, why_not_transformed
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


def fla_backend(rule: str, module: str, reference: Kernel, *, by_token: bool = False, weighs: bool = True) -> Backend:
    """A kernel of fla's: the contract of ``reference``, on CUDA.

    Args:
        rule: its name, for the warning.
        module: of ``fla.ops``, and the end of its functions' names.
        reference: the rule's definition, with which the first call for each kind of keys compares the kernel. Their
            device, dtype, K and H count: for each H the kernels tune themselves, for a minute or more.
        by_token: the recurrent kernel, for one token of decoding, without a gradient.
        weighs: the kernel knows write strengths; else the values are multiplied by them.
    """

    def kernel(
        q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None, scale: float
    ) -> tuple[Tensor | None, Tensor]:
        function = f"{'fused_recurrent' if by_token else 'chunk'}_{module}"
        o, state = getattr(import_module(f"fla.ops.{module}"), function)(  # by keyword: fla's orders do not agree
            q=k if q is None else q,
            k=k,
            **({"v": v, "beta": beta} if weighs else {"v": v * beta[..., None].to(v.dtype)}),
            g=g if by_token else g.clamp(min=LEAST_LOG_DECAY),
            scale=scale,
            initial_state=initial_state,
            output_final_state=True,
        )
        return (None if q is None else o), state

    def why_not(k: Tensor) -> str | None:
        if reason := why_not_fla(k) or (why_not_one_token(k) if by_token else None):
            return reason
        return _fault(name, kernel, reference, k.device, k.dtype, int(k.shape[-2]), int(k.shape[-1]), not by_token)

    name = f"fla's {'recurrent ' if by_token else ''}{rule} kernel"
    return Backend(kernel, why_not)


@functools.cache
def _fault(
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
