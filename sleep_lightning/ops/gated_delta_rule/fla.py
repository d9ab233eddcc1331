"""flash-linear-attention's Triton kernels, by chunk and by token, for CUDA; fla is imported at the first call."""

from torch import Tensor

from sleep_lightning.ops.fla import LEAST_LOG_DECAY, fla_fault, why_not_fla, why_not_fla_step
from sleep_lightning.ops.gated_delta_rule.reference import reference_gated_delta_rule


def why_not_fla_gated_delta_rule(k: Tensor) -> str | None:
    """Why the kernel cannot take keys ``k`` ``[B, T, H, K]``; None if it can. The first of a kind run a self-test."""
    return why_not_fla(k) or fla_fault(
        "fla's gated delta rule kernel", fla_gated_delta_rule, reference_gated_delta_rule, k
    )


def fla_gated_delta_rule(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor | None, Tensor]:
    """Same contract as ``reference_gated_delta_rule``, on CUDA."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    # g and beta by keyword: fla's own functions do not agree on their order.
    o, state = chunk_gated_delta_rule(
        q=k if q is None else q,
        k=k,
        v=v,
        g=g.clamp(min=LEAST_LOG_DECAY),
        beta=beta,
        scale=scale,
        initial_state=initial_state,
        output_final_state=True,
    )
    return (None if q is None else o), state


def why_not_fla_recurrent_gated_delta_rule(k: Tensor) -> str | None:
    """The same of the recurrent kernel, for one token of decoding."""
    return why_not_fla_step(k) or fla_fault(
        "fla's recurrent gated delta rule kernel",
        fla_recurrent_gated_delta_rule,
        reference_gated_delta_rule,
        k,
        gradients=False,
    )


def fla_recurrent_gated_delta_rule(
    q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None, scale: float
) -> tuple[Tensor | None, Tensor]:
    """Same contract as ``reference_gated_delta_rule``, on CUDA, without a gradient."""
    from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule

    o, state = fused_recurrent_gated_delta_rule(
        q=k if q is None else q,
        k=k,
        v=v,
        g=g,
        beta=beta,
        scale=scale,
        initial_state=initial_state,
        output_final_state=True,
    )
    return (None if q is None else o), state
