"""flash-linear-attention's Triton chunk kernel, for CUDA. fla is imported at the first call: it takes seconds."""

from torch import Tensor


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
        g=g,
        scale=scale,
        initial_state=initial_state,
        output_final_state=True,
    )
    return (None if q is None else o), state
