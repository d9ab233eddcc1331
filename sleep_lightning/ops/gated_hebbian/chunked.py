"""The gated Hebbian rule a chunk at a time, in plain torch that autograd differentiates.

Shape suffixes: N batch x heads, M chunks, C tokens of a chunk, K key dim, V value dim.

Inside a chunk that starts from state S, with ``G = cumsum(g)``, ``D_ti = exp(G_t - G_i)`` for i <= t and
``W = diag(b) V``:

    O = scale (diag(e^G) Q S + (D * Q K^T) W)
    S' = e^{G_C} S + (diag(e^{G_C - G}) K)^T W
"""

import math

import torch
from torch import Tensor

from sleep_lightning.ops.chunks import chunk_length, decays, heads_first, tokens_first


def chunked_gated_hebbian(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
    chunk: int | None = None,
) -> tuple[Tensor | None, Tensor]:
    """Same contract as ``reference_gated_hebbian``; differentiable in every tensor."""
    B, T, H, K = k.shape
    V, C = v.shape[-1], chunk or chunk_length(T)
    M, N = math.ceil(T / C), B * H
    dtype = torch.float64 if k.dtype == torch.float64 else torch.float32
    if initial_state is None:
        initial_state = k.new_zeros(B, H, K, V, dtype=dtype)
    with torch.autocast(k.device.type, enabled=False):  # the state is fp32, and so are the sums that make it
        k_, v_, beta_ = (heads_first(x, M, C, dtype) for x in (k, v, beta))
        eG_NMC, eGC_NMC, D_NMCC = decays(heads_first(g, M, C, dtype))
        W_NMCV = v_ * beta_[..., None]
        written_NMKV = (k_ * eGC_NMC[..., None]).transpose(-1, -2) @ W_NMCV
        states = [initial_state.to(dtype).reshape(N, K, V)]
        for m in range(M):
            states.append(torch.addcmul(written_NMKV[:, m], states[m], eG_NMC[:, m, -1, None, None]))
        final = states.pop().view(B, H, K, V)
        if q is None:
            return None, final
        q_ = heads_first(q, M, C, dtype) * scale
        P_NMCC = (q_ @ k_.transpose(-1, -2)) * D_NMCC
        o_NMCV = torch.addcmul(P_NMCC @ W_NMCV, eG_NMC[..., None], q_ @ torch.stack(states, 1))
    return tokens_first(o_NMCV, v), final
