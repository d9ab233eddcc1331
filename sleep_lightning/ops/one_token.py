"""The memory rules for one token, for decoding: the fewest torch operations, and no gradient.

Shape suffixes: N batch x heads, K key dim, V value dim.
"""

import torch
from torch import Tensor

from sleep_lightning.ops.chunks import starting_state
from sleep_lightning.ops.dtype import autocast

MOST_NUMBERS = 2**17
"""Of keys and state together: beyond, a kernel that goes through the state once is faster than four that do so."""


def why_not_one_token(k: Tensor) -> str | None:
    """Why a call with keys ``k`` ``[B, T, H, K]`` is no step of decoding; None if it is."""
    if k.shape[1] != 1:
        return f"a step takes one token, not {k.shape[1]}"
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return "a step has no backward"
    return None


def why_not_step(k: Tensor) -> str | None:
    """``why_not_one_token`` of the steps in torch; a large state is left to the kernels."""
    if k.numel() * k.shape[-1] > MOST_NUMBERS and k.dtype != torch.float64:
        return "the state is large"
    return why_not_one_token(k)


def delta_rule_step(
    q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None, scale: float
) -> tuple[Tensor | None, Tensor]:
    """Same contract as ``reference_gated_delta_rule`` for T = 1, but for gradients."""
    return _step(q, k, v, g, beta, initial_state, scale, delta=True)


def hebbian_step(
    q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None, scale: float
) -> tuple[Tensor | None, Tensor]:
    """Same contract as ``reference_gated_hebbian`` for T = 1, but for gradients."""
    return _step(q, k, v, g, beta, initial_state, scale, delta=False)


def _step(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
    *,
    delta: bool,
) -> tuple[Tensor | None, Tensor]:
    state = starting_state(k, v, initial_state)
    (B, H, K, V), dtype = state.shape, state.dtype
    with autocast(k.device.type, enabled=False):
        k_N1K, v_N1V, beta_N11 = (x.to(dtype).reshape(B * H, 1, -1) for x in (k, v, beta))
        decayed_NKV = (state * g.to(dtype).exp().reshape(B, H, 1, 1)).view(B * H, K, V)
        write_N1V = (v_N1V - k_N1K @ decayed_NKV if delta else v_N1V) * beta_N11
        state_NKV = decayed_NKV.baddbmm_(k_N1K.transpose(1, 2), write_N1V)
        o = None if q is None else scale * (q.to(dtype).reshape(B * H, 1, K) @ state_NKV)
    return None if o is None else o.view(B, 1, H, V).to(v.dtype), state_NKV.view(B, H, K, V)
