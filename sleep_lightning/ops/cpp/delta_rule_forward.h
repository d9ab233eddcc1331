// The forward of one head.
#pragma once
#include "delta_rule_head.h"

namespace {

struct ForwardHead : Head {
    ForwardHead(const Args& a, Index n, Index next, float* base) : Head(a, n, next, a.q.data, base) {}

    // E, U, Uout and O of one panel of V, from the first row to the last.
    template <int N>
    NOINLINE void forward_panel(Index x, bool live) const {
        constexpr Index W = N * LANES;
        const Rows v = rows(a.v, V), o = rows(a.o, V), errors = rows(a.errors, V);
        const View S = panel(this->S, x, W);
        float *U = U_pCV + x * Cl, *Uout = Uout_pCV + x * Cl;
        for (Index t = 0; t < Cp; t += ROWS) {
            Tile<N> tile = {};
            if (live) add_long_product(tile, k_CK + t * Kp, Kp, S.data, S.ld, K);
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int c = 0; c < N; c++) tile.at[r][c] *= eG_C[t + r];
            subtract_from(v, t, x, tile);
            add_product(tile, minusB_CC + t * Cl, Cl, U, W, t);
            solve_down(tile, t, U);
            if (errors.data) write(errors, t, x, tile);
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int c = 0; c < N; c++)
                    store(Uout + ((t + r) * N + c) * LANES, tile.at[r][c] * (beta_C[t + r] * eGC_C[t + r]));
            if (reads) read_panel<N>(o, t, x, live, S);
        }
    }

    // Forward substitution inside ROWS rows: tile -> E, and U.
    template <int N>
    INLINE void solve_down(Tile<N>& tile, Index t, float* U) const {
        UNROLL for (int r = 0; r < ROWS; r++)
            UNROLL for (int c = 0; c < N; c++) {
                const Vec u = tile.at[r][c] * beta_C[t + r];
                store(U + ((t + r) * N + c) * LANES, u);
                UNROLL for (int s = r + 1; s < ROWS; s++) tile.at[s][c] += u * minusB_CC[(t + s) * Cl + t + r];
            }
    }

    template <int N>
    void read_panel(const Rows& o, Index t, Index x, bool live, const View& S) const {
        constexpr Index W = N * LANES;
        Tile<N> tile = {};
        if (live) add_long_product(tile, q_CK + t * Kp, Kp, S.data, S.ld, K);
        UNROLL for (int r = 0; r < ROWS; r++)
            UNROLL for (int c = 0; c < N; c++) tile.at[r][c] *= eG_C[t + r];
        add_lower_product(tile, P_CC + t * Cl, Cl, U_pCV + x * Cl, W, t);
        write(o, t, x, tile);
    }

    // Prefetches what the forward of chunk m + 1, or of the next head, reads and writes.
    void look_ahead(Index m) const {
        ahead.clear();
        const bool last = m + 1 == chunks;
        if (last) ahead.add(state_rows(state(a.final_state)));
        if (last && next == a.B * a.H) return;
        const Place p = last ? place(next, 0) : place(n, m + 1);
        ahead.add(rows(a.k, K, p));
        if (reads) ahead.add(rows(a.q, K, p));
        if (last && a.initial_state) ahead.add(state_rows(a.initial_state + next * K * V));
        ahead.add(rows(a.v, V, p));
        ahead.add(rows(a.errors, V, p));
        if (reads) ahead.add(rows(a.o, V, p));
    }

    void forward() {
        bool live = a.initial_state;  // a state that is not live is zero: its products are skipped
        if (live) load_state(S, state(a.initial_state));
        for (Index m = 0; m < chunks; m++, live = true) {
            if (m && m % a.segment == 0 && a.states)
                store_state(state(a.states, segments - 1, m / a.segment - 1), S);
            start_chunk(m);
            look_ahead(m);
            load_chunk();
            float* out = m + 1 == chunks ? state(a.final_state) : nullptr;
            each_panel(Vp, [&](auto n, Index x) { forward_panel<n()>(x, live); });
            each_panel(Vp, [&](auto n, Index x) { state_panel<n()>(x, live, S, S.pKV, out); });
            S.outside_KV = nullptr;
        }
    }
};

}  // namespace
