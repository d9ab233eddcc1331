// One head's loop over its chunks: pointers to the caller's tensors and to the workspace, and what forward and backward
// both compute of a chunk. Names and layouts: gated_delta_rule.cpp.
#pragma once
#include <algorithm>

#include "rows.h"

// Tensor and Args are mirrored by ops/gated_delta_rule/cpp.py.
struct Tensor {
    char* data;  // null: absent
    Index stride_b, stride_t, stride_h, bf16;
};

struct Args {
    Index B, T, H, K, V, chunk, segment, threads;
    double scale;
    Tensor q, k, v, g, beta;                      // [B, T, H, *]
    Tensor o, errors;                             // [B, T, H, V]; errors: E, float
    float *initial_state, *final_state, *states;  // [B, H, K, V]; states [B, H, segments - 1, K, V]
    Tensor d_o, d_q, d_k, d_v, d_g, d_beta;       // [B, T, H, *]
    float *d_final_state, *d_initial_state;       // [B, H, K, V]
};

namespace {

template <int... I>
INLINE IntVec lanes_from(Index i, std::integer_sequence<int, I...>) {
    return IntVec{I...} + int(i);
}

// i, i + 1, ..
INLINE IntVec lanes_from(Index i) { return lanes_from(i, std::make_integer_sequence<int, LANES>()); }

// One chunk of one head.
struct Place {
    Index b, h, t0, tokens;
};

// A state: in panels in the workspace, or in the caller's memory.
struct State {
    float* pKV;
    const float* outside_KV = nullptr;
};

struct View {
    const float* data;
    Index ld;
};

// One head's loop over its chunks.
struct Head {
    const Args& a;
    const Index n, next, K, V, Kp, Vp, Cl, chunks, segments;  // next: the head after this one; B * H if none
    const bool reads;                                         // whether there are queries
    Place here = {};
    Index tokens = 0, Cp = 0;  // of the current chunk; Cp: padded to ROWS
    mutable Ahead ahead;

    double* exact_C;          // G
    float *G_C, *rest_C;      // G rounded to float, and the rounding error
    float *eG_C, *eGC_C, *beta_C;  // eGC: e^{G_C - G_t}
    float *D_CC, *minusB_CC, *P_CC;
    float *k_CK, *q_CK, *kT_KC;
    float *U_pCV, *Uout_pCV;  // Uout: e^{G_C - G_t} U_t
    State S;
    Index used = 0;

    Head(const Args& a, Index n, Index next, bool reads, float* base)
        : a(a),
          n(n),
          next(next),
          K(a.K),
          V(a.V),
          Kp(round_up(K, TOKENS)),
          Vp(round_up(V, TOKENS)),
          Cl(round_up(a.chunk, TOKENS)),
          chunks((a.T + a.chunk - 1) / a.chunk),
          segments((chunks + a.segment - 1) / a.segment),
          reads(reads) {
        exact_C = reinterpret_cast<double*>(take(base, 2 * Cl));
        for (float** p : {&G_C, &rest_C, &eG_C, &eGC_C, &beta_C}) *p = take(base, Cl);
        for (float** p : {&D_CC, &minusB_CC, &P_CC}) *p = take(base, Cl * Cl);
        for (float** p : {&k_CK, &q_CK, &kT_KC}) *p = take(base, Cl * Kp);
        for (float** p : {&U_pCV, &Uout_pCV}) *p = take(base, Cl * Vp);
        S = {take(base, Kp * Vp)};
    }

    // The next n floats of the workspace, aligned to a cache line. Without a base only the size is counted.
    float* take(float* base, Index n) {
        float* p = base ? base + used : nullptr;
        used += round_up(n, 16);
        return p;
    }

    // This head's [K, V] of a [B, H, count, K, V] tensor.
    float* state(float* x, Index count = 1, Index i = 0) const { return x + (n * count + i) * K * V; }

    Rows state_rows(const float* x_KV) const {
        return {reinterpret_cast<char*>(const_cast<float*>(x_KV)), V, K, V, false};
    }

    // The rows of a [B, T, H, width] tensor in one chunk, by default the current one.
    Rows rows(const Tensor& x, Index width) const { return rows(x, width, here); }
    Rows rows(const Tensor& x, Index width, const Place& p) const {
        const Index at = p.b * x.stride_b + p.t0 * x.stride_t + p.h * x.stride_h;
        return {x.data ? x.data + at * (x.bf16 ? 2 : 4) : nullptr, x.stride_t, p.tokens, width, x.bf16 != 0};
    }

    Place place(Index n, Index m) const {
        return {n / a.H, n % a.H, m * a.chunk, std::min(a.chunk, a.T - m * a.chunk)};
    }

    void start_chunk(Index m) {
        here = place(n, m);
        tokens = here.tokens;
        Cp = round_up(tokens, ROWS);
    }

    void load_rows(float* out_CK, const Tensor& x, Index count, float scale = 1.0f) const {
        const Rows in = rows(x, K);
        each_panel(Kp, [&](auto n, Index i) {
            each_row<n()>(in, 0, count, i, [&](Index t, auto& row) { store_row(out_CK + t * Kp + i, row, scale); });
        });
    }

    // G sums in double: the difference of two float sums loses the small decays that follow a large one.
    void load_gates() const {
        read_column(beta_C, rows(a.beta, 1), Cl);
        read_column(G_C, rows(a.g, 1), Cl);
        double sum = 0;
        for (Index t = 0; t < Cl; t++) {
            sum += G_C[t] < -1e4f ? -1e4f : G_C[t];  // -inf then decays to zero instead of giving NaN
            exact_C[t] = sum;
        }
        for (Index t = 0; t < Cl; t++) {
            G_C[t] = float(exact_C[t]);
            rest_C[t] = float(exact_C[t] - G_C[t]);
            eG_C[t] = G_C[t];
            eGC_C[t] = float(sum - exact_C[t]);
        }
        for (Index t = 0; t < Cl; t += LANES) {
            store(eG_C + t, exp_negative(load(eG_C + t)));
            store(eGC_C + t, exp_negative(load(eGC_C + t)));
        }
    }

    // D, zero above the diagonal. Only differences <= 0 are exponentiated, so nothing overflows.
    void load_decays() const {
        for (Index t = 0; t < Cp; t++)
            for (Index i = 0; i <= t; i += LANES) {
                const Vec passed = (G_C[t] - load(G_C + i)) + (rest_C[t] - load(rest_C + i));
                store(D_CC + t * Cl + i, exp_negative(lanes_from(i) <= int(t) ? passed : Vec{} - 1e30f));
            }
    }

    // D * (rows_CK K^T) * sign in the lower triangle and zeros up to its blocks' right edge.
    void load_products(float* out_CC, const float* rows_CK, float sign) const {
        for (Index t = 0; t < Cp; t += ROWS)
            each_panel(round_up(t + ROWS, TOKENS), [&](auto n, Index i) {
                constexpr int N = n();
                Tile<N> tile = {};
                add_long_product(tile, rows_CK + t * Kp, Kp, kT_KC + i, Cl, K);
                UNROLL for (int r = 0; r < ROWS; r++)
                    UNROLL for (int c = 0; c < N; c++) {
                        const Index at = (t + r) * Cl + i + c * LANES;
                        store(out_CC + at, tile.at[r][c] * load(D_CC + at) * sign);
                    }
            });
    }

    // add_product over many columns, with prefetching in between
    template <int N>
    INLINE void add_long_product(Tile<N>& tile, const float* a, Index ld_a, const float* b, Index ld_b, Index n) const {
        for (Index i = 0; i < n; i += 32) {
            ahead.step();
            add_product(tile, a + i, ld_a, b + i * ld_b, ld_b, std::min<Index>(32, n - i));
        }
    }

    // Everything in the chunk that does not depend on the state.
    void load_chunk() const {
        load_rows(k_CK, a.k, Cl);
        for (Index t = 0; t < Cl; t += LANES)
            for (Index i = 0; i < Kp; i += LANES) transpose(kT_KC + i * Cl + t, Cl, k_CK + t * Kp + i, Kp);
        load_gates();
        load_decays();
        load_products(minusB_CC, k_CK, -1.0f);
        for (Index t = 0; t < Cp; t++) minusB_CC[t * Cl + t] = 0.0f;
        if (!reads) return;
        load_rows(q_CK, a.q, Cp, float(a.scale));
        load_products(P_CC, q_CK, 1.0f);
    }

    // A state of at most half of L1 is read in place; the rows of a larger one would map to the same cache sets.
    void load_state(State& to, const float* in_KV) const {
        if (K == Kp && V == Vp && K * V <= 4096) {
            to.outside_KV = in_KV;
            return;
        }
        const Rows in = state_rows(in_KV);
        to.outside_KV = nullptr;
        each_panel(Vp, [&](auto n, Index x) {
            float* out = to.pKV + x * Kp;
            each_row<n()>(in, 0, Kp, x, [&](Index i, auto& row) { store_row(out + i * n() * LANES, row); });
        });
    }

    // The panel of the given width at column x.
    View panel(const State& from, Index x, Index width) const {
        if (from.outside_KV) return {from.outside_KV + x, V};
        return {from.pKV + x * Kp, width};
    }

    void store_state(float* out_KV, const State& from) const {
        const Rows out = state_rows(out_KV);
        each_panel(Vp, [&](auto n, Index x) {
            for (Index i = 0; i < Kp; i += ROWS) write_some<n()>(out, i, x, from.pKV + x * Kp + i * n() * LANES);
        });
    }

    // S' = e^{G_C} S + K^T Uout, one panel of V, into the workspace or the caller's `out`.
    template <int N>
    NOINLINE void state_panel(Index x, bool live, const State& from, float* to_pKV, float* out_KV = nullptr) const {
        constexpr Index W = N * LANES;
        const Rows out = state_rows(out_KV);
        const View S = panel(from, x, W);
        for (Index i = 0; i < Kp; i += ROWS) {
            Tile<N> tile = {};
            if (live) load_scaled(tile, S.data + i * S.ld, eG_C[Cp - 1], S.ld);
            ahead.step();
            add_transposed(tile, k_CK + i, Kp, Uout_pCV + x * Cl, W, Cp);
            out_KV ? write(out, i, x, tile) : store_tile(to_pKV + x * Kp + i * W, tile);
        }
    }
};

}  // namespace
