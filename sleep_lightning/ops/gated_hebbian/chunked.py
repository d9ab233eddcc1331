"""The gated Hebbian rule a chunk at a time: exact, in plain torch, with a hand-derived backward.

Shape suffixes: N batch x heads, M chunks, C tokens of a chunk, K key dim, V value dim.

Inside a chunk that starts from state S, with ``G = cumsum(g)``, ``D_ti = exp(G_t - G_i)`` for i <= t,
``W = diag(b) V`` and ``P = D * (Q K^T)``:

    O = scale (diag(e^G) Q S + P W)
    S' = e^{G_C} S + (diag(e^{G_C - G}) K)^T W

Nothing that is written waits for the state, so only the elementwise sum of S' runs chunk by chunk.
"""

import math
from typing import Any

import torch
from torch import Tensor

from sleep_lightning.ops.chunks import chunk_length, decays, heads_first, starting_state, tokens_first
from sleep_lightning.ops.dtype import outside_autocast
from sleep_lightning.ops.transforms import apply, first_derivative_only


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
    """Same contract as ``reference_gated_hebbian``; differentiable once in q, k, v, g, beta and the state."""
    state = starting_state(k, v, initial_state)
    o, state = apply(_ChunkedGatedHebbian, q, k, v, g, beta, state, scale, chunk or chunk_length(k.shape[1]))
    return o, state


class _ChunkedGatedHebbian(torch.autograd.Function):
    @staticmethod
    @outside_autocast
    def forward(
        ctx: Any,
        q: Tensor | None,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        beta: Tensor,
        initial_state: Tensor,
        scale: float,
        C: int,
    ) -> tuple[Tensor | None, Tensor]:
        B, T, H, K = k.shape
        V, M, N = v.shape[-1], math.ceil(T / C), B * H
        dtype = initial_state.dtype
        k_, v_, beta_ = (heads_first(x, M, C, dtype) for x in (k, v, beta))
        eG, eGC, D = decays(heads_first(g, M, C, dtype))
        W = v_ * beta_[..., None]
        written = (k_ * eGC[..., None]).transpose(-1, -2) @ W
        states = [initial_state.reshape(N, K, V)]
        for m in range(M):
            states.append(torch.addcmul(written[:, m], states[m], eG[:, m, -1, None, None]))
        final, S = states.pop().view(B, H, K, V), torch.stack(states, 1)
        o = q_ = P = state_reads = None
        if q is not None:
            q_ = heads_first(q, M, C, dtype).mul_(scale)
            P = (q_ @ k_.transpose(-1, -2)).mul_(D)
            state_reads = q_ @ S
            o = tokens_first((P @ W).addcmul_(eG[..., None], state_reads), v)
        ctx.save_for_backward(q, k, v, g, beta, initial_state, q_, k_, v_, beta_, eG, eGC, D, P, state_reads, S)
        ctx.scale = scale
        return o, final

    @staticmethod
    @first_derivative_only("the chunked gated Hebbian rule")
    @outside_autocast
    def backward(ctx: Any, do: Tensor | None, d_final: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, beta, _, q_, k_, v_, beta_, eG, eGC, D, P, state_reads, S = ctx.saved_tensors
        (N, M, K, V), C = S.shape, k_.shape[2]
        W, k_out = v_ * beta_[..., None], k_ * eGC[..., None]
        # The one recurrence of the backward: the state's gradient after the last chunk, then before it, and so on.
        d_states = [d_final.reshape(N, K, V)]
        if do is not None and q is not None:
            do_ = heads_first(do, M, C, S.dtype)
            d_state_reads = do_ * eG[..., None]
            asked = q_.transpose(-1, -2) @ d_state_reads
        for m in reversed(range(M)):
            d_state = d_states[-1] * eG[:, m, -1, None, None]
            d_states.append(d_state if do is None or q is None else d_state + asked[:, m])
        d_initial, dS_out = d_states.pop(), torch.stack(d_states[::-1], 1)

        dW = k_out @ dS_out
        dk_out = W @ dS_out.transpose(-1, -2)
        dk = dk_out * eGC[..., None]
        # Gates, by direct sums in float64, as in the gated delta rule: rows and columns cancel almost entirely.
        leaving = (k_out * dk_out).sum(-1).double()
        dG = -leaving
        dG[..., -1] += leaving.sum(-1) + (S * dS_out).sum((-1, -2)) * eG[..., -1]
        dq = None
        if do is not None and q is not None:
            dW += P.transpose(-1, -2) @ do_
            dP = do_ @ W.transpose(-1, -2)
            M_P = (dP * P).double()
            dG += M_P.sum(-1) - M_P.sum(-2) + (d_state_reads * state_reads).sum(-1)
            dQK = dP.mul_(D)
            dq = tokens_first((dQK @ k_ + d_state_reads @ S.transpose(-1, -2)).mul_(ctx.scale), q)
            dk += dQK.transpose(-1, -2) @ q_
        dg = dG.flip(-1).cumsum(-1).flip(-1)
        return (
            dq,
            tokens_first(dk, k),
            tokens_first(dW * beta_[..., None], v),
            tokens_first(dg, g),
            tokens_first((dW * v_).sum(-1), beta),
            d_initial.view_as(d_final),
            None,
            None,
        )
