"""The gated delta rule a chunk at a time: exact WY form in plain torch, with a hand-derived backward.

Shape suffixes: N batch x heads, M chunks, C tokens of a chunk, K key dim, V value dim.

Inside a chunk that starts from state S, with ``G = cumsum(g)``, ``D_ti = exp(G_t - G_i)`` for i <= t,
``A = strictly_lower(b_t D_ti k_t.k_i)`` and ``P = D * (Q K^T)``:

    U = (I + A)^-1 diag(b) (V - diag(e^G) K S)             the values really written
    O = scale (diag(e^G) Q S + P U)
    S' = e^{G_C} S + (diag(e^{G_C - G}) K)^T U

The inverse is explicit (triangular solve on the identity) because the backward uses it again, transposed.
Neumann doubling would be cheaper and is wrong for nearly parallel keys.
"""

import math
from typing import Any

import torch
from torch import Tensor

from sleep_lightning.ops.chunks import chunk_length, decays, heads_first, starting_state, tokens_first
from sleep_lightning.ops.dtype import outside_autocast
from sleep_lightning.ops.transforms import apply, first_derivative_only


def chunked_gated_delta_rule(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
    chunk: int | None = None,
) -> tuple[Tensor | None, Tensor]:
    """Same contract as ``reference_gated_delta_rule``; differentiable once in q, k, v, g, beta and the state."""
    state = starting_state(k, v, initial_state)
    o, state = apply(_ChunkedGatedDeltaRule, q, k, v, g, beta, state, scale, chunk or chunk_length(k.shape[1]))
    return o, state


class _ChunkedGatedDeltaRule(torch.autograd.Function):
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
        reads = k_ if q is None else torch.cat((k_, heads_first(q, M, C, dtype)), 2)  # rows K, then Q: one GEMM each
        products = reads @ k_.transpose(-1, -2)
        KKD = (products[:, :, :C] * D).tril_(-1)
        P = None if q is None else products[:, :, C:] * D
        identity = torch.eye(C, dtype=dtype, device=k.device).expand_as(D)
        inverse = torch.linalg.solve_triangular(KKD * beta_[..., None], identity, upper=False, unitriangular=True)

        states = k_.new_empty(M + 1, N, K, V)
        states[0] = initial_state.reshape(N, K, V)
        state_reads = k_.new_empty(N, M, reads.shape[2], V)
        U = torch.empty_like(v_)
        k_out = k_ * eGC[..., None]
        for m in range(M):
            torch.bmm(reads[:, m], states[m], out=state_reads[:, m]) if M == 1 else state_reads[:, m].copy_(
                torch.bmm(reads[:, m], states[m])
            )
            W = torch.addcmul(v_[:, m], eG[:, m, :, None], state_reads[:, m, :C], value=-1)
            U[:, m] = torch.bmm(inverse[:, m], W * beta_[:, m, :, None])
            torch.baddbmm(
                states[m] * eG[:, m, -1, None, None], k_out[:, m].transpose(-1, -2), U[:, m], out=states[m + 1]
            )
        o = None
        if P is not None:
            o_ = (P @ U).addcmul_(eG[..., None], state_reads[:, :, C:])
            o = tokens_first(o_.mul_(scale), v)
        inputs = q, k, v, g, beta, initial_state
        ctx.save_for_backward(*inputs, reads, v_, beta_, eG, eGC, D, KKD, P, inverse, states, state_reads, U)
        ctx.scale, ctx.chunk = scale, C
        return o, states[M].view(B, H, K, V)

    @staticmethod
    @first_derivative_only("the chunked gated delta rule")
    @outside_autocast
    def backward(ctx: Any, do: Tensor | None, d_final: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, beta, _, reads, v_, beta_, eG, eGC, D, KKD, P, inverse, states, state_reads, U = ctx.saved_tensors
        C, scale = ctx.chunk, ctx.scale
        B, _, H, K = k.shape
        N, M, V = U.shape[0], U.shape[1], U.shape[-1]
        k_, q_ = reads[:, :, :C], reads[:, :, C:]
        dU = torch.zeros_like(U)
        d_reads_S = U.new_zeros(N, M, reads.shape[2], V)  # gradient of (K S, Q S), rows as in `reads`
        if do is not None and q is not None:
            do_ = heads_first(do, M, C, U.dtype).mul_(scale)
            torch.matmul(P.transpose(-1, -2), do_, out=dU)
            torch.mul(do_, eG[..., None], out=d_reads_S[:, :, C:])

        # The one recurrence of the backward: the state's gradient, chunk by chunk from the end.
        d_states = torch.empty_like(states)
        d_states[M] = d_final.reshape(N, K, V)
        k_out = k_ * eGC[..., None]
        dR = torch.empty_like(U)
        for m in reversed(range(M)):
            dU[:, m] += torch.bmm(k_out[:, m], d_states[m + 1])
            dR[:, m] = torch.bmm(inverse[:, m].transpose(-1, -2), dU[:, m])
            d_reads_S[:, m, :C] = dR[:, m] * (-beta_[:, m] * eG[:, m])[..., None]
            torch.baddbmm(
                d_states[m + 1] * eG[:, m, -1, None, None],
                reads[:, m].transpose(-1, -2),
                d_reads_S[:, m],
                out=d_states[m],
            )

        S, dS_out = states[:M].transpose(0, 1), d_states[1:].transpose(0, 1)
        dA = -(dR @ U.transpose(-1, -2))
        dA_KKD = dA * KKD
        dKK = (dA * D).tril_(-1).mul_(beta_[..., None])
        d_reads = d_reads_S @ S.transpose(-1, -2)
        W = torch.addcmul(v_, eG[..., None], state_reads[:, :, :C], value=-1)
        d_beta = (dR * W).sum(-1) + dA_KKD.sum(-1)
        dk_out = U @ dS_out.transpose(-1, -2)
        dk = d_reads[:, :, :C] + dKK @ k_ + dKK.transpose(-1, -2) @ k_ + dk_out * eGC[..., None]

        # Gates, by direct sums in float64: rows and columns cancel but for the pairs on both sides of a gate.
        # q.dq - k.dk would be shorter, but cancels at large decays.
        M_A = (dA_KKD * beta_[..., None]).double()
        dG = M_A.sum(-1) - M_A.sum(-2) + (d_reads_S * state_reads).view(N, M, -1, C, V).sum((2, 4))
        leaving = (k_out * dk_out).sum(-1).double()
        dG -= leaving
        dG[..., -1] += leaving.sum(-1) + (S * dS_out).sum((-1, -2)) * eG[..., -1]
        dq = None
        if do is not None and q is not None:
            dP = do_ @ U.transpose(-1, -2)
            M_P = (dP * P).double()
            dG += M_P.sum(-1) - M_P.sum(-2)
            dQK = dP.mul_(D)
            dq = tokens_first(d_reads[:, :, C:] + dQK @ k_, q)
            dk += dQK.transpose(-1, -2) @ q_
        dg = dG.flip(-1).cumsum(-1).flip(-1)
        return (
            dq,
            tokens_first(dk, k),
            tokens_first(dR.mul_(beta_[..., None]), v),
            tokens_first(dg, g),
            tokens_first(d_beta, beta),
            d_states[0].view(B, H, K, V),
            None,
            None,
        )
