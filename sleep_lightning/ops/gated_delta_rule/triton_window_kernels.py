"""Triton kernels of the gated delta rule on a short window, scanned by one program with the state on chip.

The grid is (batch x heads, slabs of V). The algebra and its symbols are those of ``chunked``, with chunks of C tokens.
For the backward, the forward leaves the state that each chunk starts from and the errors
``E = (I + strictly_lower(D_ti k_t.k_i b_i))^-1 (V - diag(e^G) K S)``, of which ``U = diag(b) E`` are written.

Suffixes: C tokens of a chunk, K a slab of BK key dims, V the program's slab of BV value dims.

An fp32 dot holds whole rows and columns of its factors in registers, and the compiler moves a dot down to the first
use of its result. Hence three rules, to which test_triton_compile holds the kernels: factors are slabs; before the
loop of the inverse nothing is computed but the inverse; the state is updated last, when nothing else is alive.
"""
# Device code has Triton's types, not Python's, and Triton cannot unpack into a tuple.
# mypy: ignore-errors
# ruff: noqa: RUF005

import triton
import triton.language as tl

from sleep_lightning.ops.gated_delta_rule.triton_window_tiles import (
    decays,
    dot,
    finite_tokens,
    load,
    load_gate,
    load_state,
    store,
    times_keys,
    unit_lower_inverse,
)


@triton.jit(do_not_specialize=["T"])
def window_forward(
    q,
    k,
    v,
    g,
    beta,
    state,
    o,
    final_state,
    starts,
    errors,
    scale,
    q_strides,
    k_strides,
    v_strides,
    g_strides,
    beta_strides,
    T,
    H,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    SLABS: tl.constexpr,
    READ: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Tokens from the first on that is not finite make all NaN, and are not computed with.

    Writes o and errors ``[B, T, H, V]``, final_state ``[B, H, K, V]`` and starts ``[B, H, chunks, K, V]``."""
    n = tl.program_id(0).to(tl.int64)
    b, h = n // H, n % H
    token, slab = tl.arange(0, C), tl.arange(0, BK)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    row, column = token[:, None], token[None, :]
    state += n * K * V
    final_state += n * K * V
    starts += n * tl.cdiv(T, C) * K * V
    o += (b * T * H + h) * V
    errors += (b * T * H + h) * V

    T_ok = finite_tokens(
        k, k_strides, v, v_strides, g, g_strides, beta, beta_strides, b, h, value, T, K, V, C, BK, SLABS
    )
    S = ()
    for j in tl.static_range(SLABS):
        S = S + (load_state(state, j * BK + slab, value, K, V),)
    for first in range(0, T_ok, C):
        t = first + token
        beta_C = load_gate(beta, beta_strides, b, h, t, T_ok)
        D_CC, from_start_C, to_end_C, whole = decays(load_gate(g, g_strides, b, h, t, T_ok), row, column)
        KK_CC = times_keys(k, k_strides, k, k_strides, b, h, t, T_ok, K, C, BK, PRECISION)
        X_CC = unit_lower_inverse(tl.where(row > column, D_CC * KK_CC * beta_C[None, :], 0.0), row, column, C)

        KS_CV = tl.zeros([C, BV], tl.float32)
        for j in tl.static_range(SLABS):
            key = j * BK + slab
            store(starts, S[j], V, key, value, K, V)
            KS_CV += dot(load(k, k_strides, b, h, t, key, T_ok, K), S[j], PRECISION)
        starts += K * V
        E_CV = dot(X_CC, load(v, v_strides, b, h, t, value, T_ok, V) - from_start_C[:, None] * KS_CV, PRECISION)
        store(errors, E_CV, H * V, t, value, T_ok, V)
        U_CV = beta_C[:, None] * E_CV

        if READ:
            P_CC = D_CC * times_keys(q, q_strides, k, k_strides, b, h, t, T_ok, K, C, BK, PRECISION)
            QS_CV = tl.zeros([C, BV], tl.float32)
            for j in tl.static_range(SLABS):
                QS_CV += dot(load(q, q_strides, b, h, t, j * BK + slab, T_ok, K), S[j], PRECISION)
            o_CV = scale * (from_start_C[:, None] * QS_CV + dot(P_CC, U_CV, PRECISION))
            store(o, o_CV, H * V, t, value, T_ok, V)

        out_CV = to_end_C[:, None] * U_CV
        S_next = ()
        for j in tl.static_range(SLABS):
            k_CK = load(k, k_strides, b, h, t, j * BK + slab, T_ok, K)
            S_next = S_next + (whole * S[j] + dot(tl.trans(k_CK), out_CV, PRECISION),)
        S = S_next
    for j in tl.static_range(SLABS):
        store(final_state, S[j], V, j * BK + slab, value, K, V)
    # The rest is NaN; outside the loop, whose registers are full.
    tl.debug_barrier()  # other threads may have stored the state
    nan_CV, nan_KV = tl.full([C, BV], float("nan"), tl.float32), tl.full([BK, BV], float("nan"), tl.float32)
    for first in range(T_ok, T, C):
        if READ:
            store(o, nan_CV, H * V, first + token, value, T, V)
        store(errors, nan_CV, H * V, first + token, value, T, V)
        for j in tl.static_range(SLABS):
            store(final_state, nan_KV, V, j * BK + slab, value, K, V)
    for _ in range(tl.cdiv(T, C) - tl.cdiv(T_ok, C)):
        for j in tl.static_range(SLABS):
            store(starts, nan_KV, V, j * BK + slab, value, K, V)
        starts += K * V


@triton.jit(do_not_specialize=["T"])
def window_backward(
    q,
    k,
    g,
    beta,
    starts,
    errors,
    d_o,
    d_final,
    dq,
    dk,
    dg,
    d_beta,
    dv,
    d_state,
    scale,
    q_strides,
    k_strides,
    g_strides,
    beta_strides,
    d_o_strides,
    T,
    H,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    SLABS: tl.constexpr,
    READ: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Writes dv, d_state, and for each slab of V a share of dq, dk, dg and d_beta (their leading axis), contiguous."""
    n = tl.program_id(0).to(tl.int64)
    b, h = n // H, n % H
    token, slab = tl.arange(0, C), tl.arange(0, BK)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    row, column = token[:, None], token[None, :]
    chunks = tl.cdiv(T, C)
    d_final += n * K * V
    d_state += n * K * V
    starts += (n + 1) * chunks * K * V
    window = b * T * H + h
    dv += window * V
    window += tl.program_id(1).to(tl.int64) * tl.num_programs(0) * T
    dq += window * K
    dk += window * K
    dg += window
    d_beta += window

    dS = ()
    for j in tl.static_range(SLABS):
        dS = dS + (load_state(d_final, j * BK + slab, value, K, V),)
    for back in range(chunks):
        t = (chunks - 1 - back) * C + token
        starts -= K * V
        beta_C = load_gate(beta, beta_strides, b, h, t, T)
        D_CC, from_start_C, to_end_C, whole = decays(load_gate(g, g_strides, b, h, t, T), row, column)
        KK_CC = times_keys(k, k_strides, k, k_strides, b, h, t, T, K, C, BK, PRECISION)
        X_CC = unit_lower_inverse(tl.where(row > column, beta_C[:, None] * D_CC * KK_CC, 0.0), row, column, C)

        dU_CV = tl.zeros([C, BV], tl.float32)
        for j in tl.static_range(SLABS):
            dU_CV += dot(load(k, k_strides, b, h, t, j * BK + slab, T, K), dS[j], PRECISION)
        dU_CV *= to_end_C[:, None]
        if READ:
            QK_CC = times_keys(q, q_strides, k, k_strides, b, h, t, T, K, C, BK, PRECISION)
            do_CV = scale * load(d_o, d_o_strides, b, h, t, value, T, V)
            dU_CV += dot(tl.trans(D_CC * QK_CC), do_CV, PRECISION)
        dR_CV = dot(tl.trans(X_CC), dU_CV, PRECISION)
        E_CV = load(errors, (T * H * V, H * V, V, 1), b, h, t, value, T, V)
        tl.store(d_beta + t * H, tl.sum(dR_CV * E_CV, 1), mask=t < T)
        U_CV = beta_C[:, None] * E_CV
        dv_CV = beta_C[:, None] * dR_CV
        store(dv, dv_CV, H * V, t, value, T, V)
        dKK_CC = tl.where(row > column, -D_CC * dot(dv_CV, tl.trans(U_CV), PRECISION), 0.0)
        share_CC = dKK_CC * KK_CC
        dKK_CC += tl.trans(dKK_CC)
        dKS_CV = -from_start_C[:, None] * dv_CV
        if READ:
            dQK_CC = D_CC * dot(do_CV, tl.trans(U_CV), PRECISION)
            share_CC += dQK_CC * QK_CC
            dQS_CV = from_start_C[:, None] * do_CV

        # A loop for each product with the state or its gradient, so that one factor at a time stays in registers.
        from_start_share_C = tl.zeros([C], tl.float32)
        if READ:
            for j in tl.static_range(SLABS):
                key = j * BK + slab
                dq_CK = dot(dQS_CV, tl.trans(load_state(starts, key, value, K, V)), PRECISION)
                from_start_share_C += tl.sum(load(q, q_strides, b, h, t, key, T, K) * dq_CK, 1)
                dq_CK += dot(dQK_CC, load(k, k_strides, b, h, t, key, T, K), PRECISION)
                store(dq, dq_CK, H * K, t, key, T, K)
        dk_start = ()
        for j in tl.static_range(SLABS):
            key = j * BK + slab
            dk_CK = dot(dKS_CV, tl.trans(load_state(starts, key, value, K, V)), PRECISION)
            from_start_share_C += tl.sum(load(k, k_strides, b, h, t, key, T, K) * dk_CK, 1)
            dk_start = dk_start + (dk_CK,)
        to_end_share_C = tl.zeros([C], tl.float32)
        whole_share = 0.0
        for j in tl.static_range(SLABS):
            key = j * BK + slab
            whole_share += tl.sum(tl.sum(load_state(starts, key, value, K, V) * dS[j], 1), 0)
            k_CK = load(k, k_strides, b, h, t, key, T, K)
            dk_CK = to_end_C[:, None] * dot(U_CV, tl.trans(dS[j]), PRECISION)
            to_end_share_C += tl.sum(k_CK * dk_CK, 1)
            dk_CK += dk_start[j] + dot(dKK_CC, k_CK, PRECISION)
            if READ:
                dk_CK += dot(tl.trans(dQK_CC), load(q, q_strides, b, h, t, key, T, K), PRECISION)
            store(dk, dk_CK, H * K, t, key, T, K)

        # The transpose of ``decays``: a gate takes the shares of all decays whose segment it lies in, again without
        # differences of running sums. (q.dq - k.dk would be shorter, but cancels at large decays.)
        share_CC = tl.cumsum(share_CC, 0, reverse=True) + to_end_share_C[None, :]
        dg_C = tl.sum(tl.where(row > column, share_CC, 0.0), 1) + tl.cumsum(from_start_share_C, 0, reverse=True)
        tl.store(dg + t * H, dg_C + whole * whole_share, mask=t < T)

        dS_before = ()
        for j in tl.static_range(SLABS):
            key = j * BK + slab
            dS_KV = whole * dS[j] + dot(tl.trans(load(k, k_strides, b, h, t, key, T, K)), dKS_CV, PRECISION)
            if READ:
                dS_KV += dot(tl.trans(load(q, q_strides, b, h, t, key, T, K)), dQS_CV, PRECISION)
            dS_before = dS_before + (dS_KV,)
        dS = dS_before
    for j in tl.static_range(SLABS):
        store(d_state, dS[j], V, j * BK + slab, value, K, V)
