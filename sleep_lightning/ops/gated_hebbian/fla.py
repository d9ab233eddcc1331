"""flash-linear-attention's Triton kernels, by chunk and by token, for CUDA; fla is imported at the first call."""

from torch import Tensor

from sleep_lightning.ops.fla import LEAST_LOG_DECAY, fla_fault, why_not_fla, why_not_fla_step
from sleep_lightning.ops.gated_hebbian.reference import reference_gated_hebbian


def why_not_fla_gated_hebbian(k: Tensor) -> str | None:
    """Why the kernel cannot take keys ``k`` ``[B, T, H, K]``; None if it can. The first of a kind run a self-test."""
    return why_not_fla(k) or fla_fault("fla's gated hebbian kernel", fla_gated_hebbian, reference_gated_hebbian, k)


def fla_gated_hebbian(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor | None, Tensor]:
    """Same contract as ``reference_gated_hebbian``, on CUDA: simple GLA with the write strength on the values."""
    from fla.ops.simple_gla import chunk_simple_gla

    o, state = chunk_simple_gla(
        q=k if q is None else q,
        k=k,
        v=v * beta[..., None].to(v.dtype),
        g=g.clamp(min=LEAST_LOG_DECAY),
        scale=scale,
        initial_state=initial_state,
        output_final_state=True,
    )
    return (None if q is None else o), state


def why_not_fla_recurrent_gated_hebbian(k: Tensor) -> str | None:
    """The same of the recurrent kernel, for one token of decoding."""
    return why_not_fla_step(k) or fla_fault(
        "fla's recurrent gated hebbian kernel", fla_recurrent_gated_hebbian, reference_gated_hebbian, k, gradients=False
    )


def fla_recurrent_gated_hebbian(
    q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None, scale: float
) -> tuple[Tensor | None, Tensor]:
    """Same contract as ``reference_gated_hebbian``, on CUDA, without a gradient."""
    from fla.ops.simple_gla import fused_recurrent_simple_gla

    o, state = fused_recurrent_simple_gla(
        q=k if q is None else q,
        k=k,
        v=v * beta[..., None].to(v.dtype),
        g=g,
        scale=scale,
        initial_state=initial_state,
        output_final_state=True,
    )
    return (None if q is None else o), state
