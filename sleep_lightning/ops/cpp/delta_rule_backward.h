// The backward of one head.
#pragma once
#include "delta_rule_head.h"

namespace {

struct BackwardHead : Head {
    float *E_pCV, *dO_pCV, *dQS_pCV, *W_pCV, *dKS_pCV;  // dKS, dQS: the gradients of S^T k_t and S^T q_t
    float *UT_VC, *dB_CC, *dP_CC, *share_CC;  // share: D's contribution to the gradient of g
    State dS;
    float *previous_dS_pKV, *dST_VP, *ST_VP, *states_MpKV;  // states: before each chunk of a segment but the first
    float *read_CL, *leaving_CL, *beta_CL, *crossing_CL;  // one vector of partial sums per token
    float *gate_C, *sums_C;

    BackwardHead(const Args& a, Index n, Index next, float* base) : Head(a, n, next, a.q.data && a.d_o.data, base) {
        for (float** p : {&E_pCV, &dO_pCV, &dQS_pCV, &W_pCV, &dKS_pCV, &UT_VC}) *p = take(base, Cl * Vp);
        for (float** p : {&dB_CC, &dP_CC, &share_CC}) *p = take(base, Cl * Cl);
        dS = {take(base, Kp * Vp)};
        previous_dS_pKV = take(base, Kp * Vp);
        for (float** p : {&dST_VP, &ST_VP}) *p = take(base, Vp * PANEL * LANES);
        states_MpKV = take(base, Kp * Vp * (std::min(a.segment, chunks) - 1));
        for (float** p : {&read_CL, &leaving_CL, &beta_CL, &crossing_CL}) *p = take(base, Cl * LANES);
        for (float** p : {&gate_C, &sums_C}) *p = take(base, Cl);
    }

    // The state before the j-th chunk of the segment.
    State before(Index j) const { return j ? State{states_MpKV + (j - 1) * Kp * Vp} : S; }

    // E as saved, and Uout.
    template <int N>
    void load_writes(Index x) const {
        each_row<N>(rows(a.errors, V), 0, Cl, x, [&](Index t, auto& row) {
            const Index at = x * Cl + t * N * LANES;
            store_row(E_pCV + at, row);
            store_row(Uout_pCV + at, row, beta_C[t] * eGC_C[t]);
        });
    }

    template <int N>
    void load_output_gradient(Index x) const {
        each_row<N>(rows(a.d_o, V), 0, Cp, x, [&](Index t, auto& row) {
            const Index at = x * Cl + t * N * LANES;
            store_row(dO_pCV + at, row);
            store_row(dQS_pCV + at, row, eG_C[t]);
        });
    }

    // One panel of K, transposed.
    template <int N>
    void transpose_state(float* out_VP, const State& from, Index i) const {
        for (Index x = 0, w; x < Vp; x += w) {
            w = panel_width(Vp - x);
            const View in = panel(from, x, w);
            for (Index ii = 0; ii < N * LANES; ii += LANES)
                for (Index xx = 0; xx < w; xx += LANES)
                    transpose(out_VP + (x + xx) * N * LANES + ii, N * LANES, in.data + (i + ii) * in.ld + xx, in.ld);
        }
    }

    void transpose_writes() const {
        for (Index x = 0, w; x < Vp; x += w) {
            w = panel_width(Vp - x);
            for (Index t = 0; t < Cl; t += LANES)
                for (Index xx = 0; xx < w; xx += LANES)
                    transpose(UT_VC + (x + xx) * Cl + t, Cl, E_pCV + x * Cl + t * w + xx, w, beta_C + t);
        }
    }

    // W (the gradient of v) and dKS of one panel of V, from the last row to the first.
    template <int N>
    NOINLINE void backward_panel(Index x, bool dS_live) const {
        constexpr Index width = N * LANES;
        const Rows d_v = rows(a.d_v, V);
        const float *E = E_pCV + x * Cl, *Uout = Uout_pCV + x * Cl, *dO = dO_pCV + x * Cl;
        const View dS = panel(this->dS, x, width);
        float *W = W_pCV + x * Cl, *dKS = dKS_pCV + x * Cl;
        for (Index t = Cp - ROWS; t >= 0; t -= ROWS) {
            const Index below = t + ROWS;
            Tile<N> tile = {};
            if (dS_live) {
                add_long_product(tile, k_CK + t * Kp, Kp, dS.data, dS.ld, K);
                add_dots(leaving_CL + t * LANES, tile, Uout + t * width, width);
                UNROLL for (int r = 0; r < ROWS; r++)
                    UNROLL for (int c = 0; c < N; c++) tile.at[r][c] *= eGC_C[t + r];
            }
            if (reads) add_transposed(tile, P_CC + t * Cl + t, Cl, dO + t * width, width, Cp - t);
            add_transposed(tile, minusB_CC + below * Cl + t, Cl, W + below * width, width, Cp - below);
            solve_up(tile, t, W);
            add_dots(beta_CL + t * LANES, tile, E + t * width, width);
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int c = 0; c < N; c++) {
                    tile.at[r][c] *= beta_C[t + r];
                    store(dKS + ((t + r) * N + c) * LANES, tile.at[r][c] * -eG_C[t + r]);
                }
            write(d_v, t, x, tile);
        }
    }

    // Backward substitution inside ROWS rows: tile -> dR, and W.
    template <int N>
    INLINE void solve_up(Tile<N>& tile, Index t, float* W) const {
        UNROLL for (int r = ROWS - 1; r >= 0; r--)
            UNROLL for (int c = 0; c < N; c++) {
                const Vec w = tile.at[r][c] * beta_C[t + r];
                store(W + ((t + r) * N + c) * LANES, w);
                UNROLL for (int s = 0; s < r; s++) tile.at[s][c] += w * minusB_CC[(t + r) * Cl + t + s];
            }
    }

    // out = sign * D * (rows U^T). D's contribution to the gradient of g is set to weights * (rows U^T), or with `add`
    // incremented by it.
    void score_gradient(float* out_CC, const float* rows_pCV, const float* weights_CC, float sign, bool add) const {
        for (Index t = 0; t < Cp; t += ROWS)
            each_panel(round_up(t + ROWS, TOKENS), [&](auto n, Index i) {
                constexpr int N = n();
                Tile<N> tile = {};
                for (Index x = 0, w; x < Vp; x += w) {
                    w = panel_width(Vp - x);
                    ahead.step();
                    add_product(tile, rows_pCV + x * Cl + t * w, w, UT_VC + x * Cl + i, Cl, w);
                }
                UNROLL for (int r = 0; r < ROWS; r++)
                    UNROLL for (int c = 0; c < N; c++) {
                        const Index at = (t + r) * Cl + i + c * LANES;
                        const Vec share = add ? load(share_CC + at) : Vec{};
                        store(share_CC + at, share + tile.at[r][c] * load(weights_CC + at));
                        store(out_CC + at, tile.at[r][c] * load(D_CC + at) * sign);
                    }
            });
    }

    // The blocks on the diagonal plus their transposes, without the diagonal: key_panel adds dB k and dB^T k at once.
    void mirror_blocks(float* out_CC) const {
        for (Index t = 0; t < Cp; t++) {
            out_CC[t * Cl + t] = 0.0f;
            for (Index i = t / ROWS * ROWS; i < t; i++) out_CC[i * Cl + t] = out_CC[t * Cl + i];
        }
    }

    // rows_pCV S^T for ROWS rows and one panel of K
    template <int N>
    INLINE void add_state_product(Tile<N>& tile, const float* rows_pCV, Index t, const float* ST_VP) const {
        for (Index x = 0, w; x < Vp; x += w) {
            w = panel_width(Vp - x);
            ahead.step();
            add_product(tile, rows_pCV + x * Cl + t * w, w, ST_VP + x * N * LANES, N * LANES, w);
        }
    }

    template <int N>
    NOINLINE void query_panel(Index i, bool live) const {
        const Rows d_q = rows(a.d_q, K);
        for (Index t = 0; t < Cp; t += ROWS) {
            Tile<N> tile = {};
            if (live) {
                add_state_product(tile, dQS_pCV, t, ST_VP);
                add_dots(read_CL + t * LANES, tile, q_CK + t * Kp + i, Kp);
            }
            add_product(tile, dP_CC + t * Cl, Cl, k_CK + i, Kp, t + ROWS);
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int c = 0; c < N; c++) tile.at[r][c] *= float(a.scale);
            write(d_q, t, i, tile);
        }
    }

    template <int N>
    NOINLINE void key_panel(Index i, bool live, bool dS_live) const {
        const Rows d_k = rows(a.d_k, K);
        for (Index t = 0; t < Cp; t += ROWS) {
            Tile<N> tile = {};
            if (live) {
                add_state_product(tile, dKS_pCV, t, ST_VP);
                add_dots(read_CL + t * LANES, tile, k_CK + t * Kp + i, Kp);
            }
            if (dS_live) add_state_product(tile, Uout_pCV, t, dST_VP);
            const Index below = t + ROWS;
            add_product(tile, dB_CC + t * Cl, Cl, k_CK + i, Kp, below);
            add_transposed(tile, dB_CC + below * Cl + t, Cl, k_CK + below * Kp + i, Kp, Cp - below);
            if (reads) add_transposed(tile, dP_CC + t * Cl + t, Cl, q_CK + t * Kp + i, Kp, Cp - t);
            write(d_k, t, i, tile);
        }
    }

    // dS = e^{G_C} dS' + K^T dKS + Q^T dQS, one panel of V; that of the initial state into `out`.
    template <int N>
    NOINLINE void state_gradient_panel(Index x, bool dS_live, float* out_KV) const {
        constexpr Index W = N * LANES;
        const Rows out = state_rows(out_KV);
        const View dS = panel(this->dS, x, W);
        for (Index i = 0; i < Kp; i += ROWS) {
            Tile<N> tile = {};
            if (dS_live) load_scaled(tile, dS.data + i * dS.ld, eG_C[Cp - 1], dS.ld);
            ahead.step();
            add_transposed(tile, k_CK + i, Kp, dKS_pCV + x * Cl, W, Cp);
            ahead.step();
            if (reads) add_transposed(tile, q_CK + i, Kp, dQS_pCV + x * Cl, W, Cp);
            out_KV ? write(out, i, x, tile) : store_tile(previous_dS_pKV + x * Kp + i * W, tile);
        }
    }

    // crossing_CL[j], summed over its lanes: the contributions of all D_ti with i < j <= t, which include the decay g_j.
    void crossing_shares() const {
        for (Index i = 0; i < Cp; i += LANES) {
            Vec columns = {};
            for (Index j = Cp - 1; j >= i; j--) {
                columns += load(share_CC + j * Cl + i);
                float* crossing = crossing_CL + j * LANES;
                store(crossing, load(crossing) + (lanes_from(i) < int(j) ? columns : Vec{}));
            }
        }
    }

    // Direct sums, no differences: q.dq - k.dk would be shorter, but cancels at large decays.
    void gate_gradients(float state_sum) const {
        const Index rows_to_sum = round_up(Cp, LANES);
        sum_lanes(sums_C, beta_CL, rows_to_sum);
        write_column(rows(a.d_beta, 1), sums_C);
        crossing_shares();
        sum_lanes(gate_C, crossing_CL, rows_to_sum);
        sum_lanes(sums_C, read_CL, rows_to_sum);
        double after = 0;  // reads of the state at token t and later
        for (Index t = Cp - 1; t >= 0; t--) gate_C[t] += float(after += sums_C[t]);
        sum_lanes(sums_C, leaving_CL, rows_to_sum);
        double before = double(state_sum) * eG_C[Cp - 1];  // what leaves the chunk and was written before token t
        for (Index t = 0; t < Cp; t++) {
            gate_C[t] = float(gate_C[t] + before);
            before += sums_C[t];
        }
        write_column(rows(a.d_g, 1), gate_C);
    }

    // Prefetches what the previous chunk, or the next head, reads and writes.
    void look_back(Index m) const {
        ahead.clear();
        if (m == 0 && a.d_initial_state) ahead.add(state_rows(state(a.d_initial_state)));
        if (m == 0 && next == a.B * a.H) return;
        if (m == 0 && a.initial_state) ahead.add(state_rows(a.initial_state + next * K * V));
        const Place p = m ? place(n, m - 1) : place(next, chunks - 1);
        ahead.add(rows(a.k, K, p));
        ahead.add(rows(a.errors, V, p));
        if (reads) ahead.add(rows(a.q, K, p));
        if (reads) ahead.add(rows(a.d_o, V, p));
        if (m == 0 && a.d_final_state) ahead.add(state_rows(a.d_final_state + next * K * V));
        ahead.add(rows(a.d_v, V, p));
        if (reads) ahead.add(rows(a.d_q, K, p));
        ahead.add(rows(a.d_k, K, p));
    }

    // The states before the chunks (first, last), from the one before the first, which is S.
    void recompute_states(Index first, Index last) {
        for (Index m = first; m + 1 < last; m++) {
            start_chunk(m);
            ahead.clear();
            const Place p = place(n, m + 1);
            ahead.add(rows(a.k, K, p));
            ahead.add(rows(a.errors, V, p));
            load_rows(k_CK, a.k, Cl);
            load_gates();
            each_panel(Vp, [&](auto n, Index x) {
                load_writes<n()>(x);
                state_panel<n()>(x, m || a.initial_state, before(m - first), before(m - first + 1).pKV);
            });
        }
    }

    void backward_chunk(const State& S, bool live, bool dS_live) {
        load_chunk();
        for (float* x : {read_CL, leaving_CL, beta_CL, crossing_CL}) std::fill(x, x + Cp * LANES, 0.0f);
        float* out = here.t0 ? nullptr : state(a.d_initial_state);
        each_panel(Vp, [&](auto n, Index x) {
            load_writes<n()>(x);
            if (reads) load_output_gradient<n()>(x);
            backward_panel<n()>(x, dS_live);
            if (here.t0 || a.d_initial_state) state_gradient_panel<n()>(x, dS_live, out);
        });
        transpose_writes();
        score_gradient(dB_CC, W_pCV, minusB_CC, -1.0f, false);
        mirror_blocks(dB_CC);
        if (reads) score_gradient(dP_CC, dO_pCV, P_CC, 1.0f, true);
        float state_sum = 0.0f;
        each_panel(Kp, [&](auto n, Index i) {
            if (live) transpose_state<n()>(ST_VP, S, i);
            if (dS_live) transpose_state<n()>(dST_VP, dS, i);
            if (live && dS_live) state_sum += dot(ST_VP, dST_VP, Vp * n() * LANES);
            if (reads) query_panel<n()>(i, live);
            key_panel<n()>(i, live, dS_live);
        });
        gate_gradients(state_sum);
        std::swap(dS.pKV, previous_dS_pKV);
        dS.outside_KV = nullptr;
    }

    void backward() {
        bool dS_live = a.d_final_state;
        if (dS_live) load_state(dS, state(a.d_final_state));
        for (Index segment = segments - 1; segment >= 0; segment--) {
            const Index first = segment * a.segment, last = std::min(chunks, first + a.segment);
            if (segment)
                load_state(S, state(a.states, segments - 1, segment - 1));
            else if (a.initial_state)
                load_state(S, state(a.initial_state));
            recompute_states(first, last);
            for (Index m = last - 1; m >= first; m--, dS_live = true) {
                start_chunk(m);
                look_back(m);
                backward_chunk(before(m - first), m || a.initial_state, dS_live);
            }
        }
    }
};

}  // namespace
