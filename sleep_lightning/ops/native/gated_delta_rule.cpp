// The gated delta rule on CPU, forward and backward, chunk by chunk in WY form. No torch headers: raw pointers,
// strides in elements. The maths is that of chunked.py; one thread owns a head from its first chunk to its last,
// so results do not depend on the number of threads.
//
// Per chunk of C tokens that starts from state S, with G = cumsum(g), D_ti = exp(G_t - G_i) for i <= t,
// B_ti = D_ti k_t.k_i for i < t, P = D * (Q K^T), Q already scaled:
//   E_t = v_t - e^{G_t} S^T k_t - sum_{i<t} B_ti U_i,   U_t = b_t E_t       forward substitution, no inverse
//   O_t = e^{G_t} S^T q_t + sum_{i<=t} P_ti U_i,        S' = e^{G_C} S + sum_t k_t (e^{G_C - G_t} U_t)^T
// and backwards, with dS' given:
//   dR_t = e^{G_C - G_t} dS'^T k_t + sum_{i>=t} P_it dO_i - sum_{i>t} B_it W_i,   W_t = b_t dR_t = dV_t
//   db_t = dR_t.E_t, so E is what the forward saves.
//
// Suffixes name the layout: _CK is a row-major [C, K]; _pCV is cut into column panels, each a row-major
// [C, panel width], so that a panel of 128 rows stays in L1 without set conflicts. C is padded to Cl, K to Kp and V to
// Vp, multiples of the vector length, with zeros: a padded token has beta = 0 and g = 0 and changes nothing.
#include <algorithm>

#include "parallel.h"
#include "tile.h"

// Tensor and Args are mirrored by gated_delta_rule/native.py.
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

#define NOINLINE __attribute__((noinline))

constexpr Index LINES_AHEAD = 24;  // asked for at every step

// ---- Reading and writing the caller's tensors.

// `count` rows of `width` numbers: the tokens of one head in one chunk, or a state.
struct Rows {
    char* data;
    Index stride, count, width;
    bool bf16;

    template <class T>
    T* at(Index t, Index col = 0) const {
        return reinterpret_cast<T*>(data) + t * stride + col;
    }
    // Whether ROWS rows of N vectors from row t and column `col` are all inside.
    template <int N>
    bool holds(Index t, Index col) const {
        return t + ROWS <= count && col + N * LANES <= width;
    }
};

// row t as N vectors from column `col`; zeros outside the tensor
template <int N>
NOINLINE void read_some(float* out, const Rows& x, Index t, Index col) {
    as_type(x.bf16, [&](auto zero) {
        const auto* in = x.at<decltype(zero)>(t, col);
        for (int c = 0; c < N * LANES; c++) out[c] = col + c < x.width && t < x.count ? float(in[c]) : 0.0f;
    });
}

// f(t, row) for rows [from, to), read as by read_some
template <int N, class F>
INLINE void each_row(const Rows& x, Index from, Index to, Index col, F f) {
    const Index end = std::max(from, std::min(to, x.count));
    Vec row[N] = {};
    if (col + N * LANES <= x.width)
        as_type(x.bf16, [&](auto zero) {
            for (Index t = from; t < end; t++) {
                const auto* in = x.at<decltype(zero)>(t, col);
                UNROLL for (int c = 0; c < N; c++) row[c] = load(in + c * LANES);
                f(t, row);
            }
        });
    else
        for (Index t = from; t < end; t++) {
            float some[N * LANES];
            read_some<N>(some, x, t, col);
            UNROLL for (int c = 0; c < N; c++) row[c] = load(some + c * LANES);
            f(t, row);
        }
    UNROLL for (int c = 0; c < N; c++) row[c] = Vec{};
    for (Index t = end; t < to; t++) f(t, row);
}

template <int N>
INLINE void store_row(float* out, const Vec (&row)[N], float scale = 1.0f) {
    UNROLL for (int c = 0; c < N; c++) store(out + c * LANES, row[c] * scale);
}

// tile = rows - tile
template <int N>
INLINE void subtract_from(const Rows& x, Index t, Index col, Tile<N>& tile) {
    float some[ROWS * N * LANES];
    const float* in = x.at<float>(t, col);
    Index ld = x.stride;
    if (!x.holds<N>(t, col) || x.bf16) {
        each_row<N>(x, t, t + ROWS, col, [&](Index r, auto& row) { store_row(some + (r - t) * N * LANES, row); });
        in = some, ld = N * LANES;
    }
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int c = 0; c < N; c++) tile.at[r][c] = load(in + r * ld + c * LANES) - tile.at[r][c];
}

template <int N>
NOINLINE void write_some(const Rows& x, Index t, Index col, const float* in) {
    as_type(x.bf16, [&](auto zero) {
        for (Index r = t; r < std::min(t + ROWS, x.count); r++)
            for (int c = 0; c < N; c++, in += LANES)
                store_some(x.at<decltype(zero)>(r, col + c * LANES), load(in), x.width - col - c * LANES);
    });
}

// The part of a tile that is inside the tensor, to row t and column `col`.
template <int N>
INLINE void write(const Rows& x, Index t, Index col, const Tile<N>& tile) {
    if (x.holds<N>(t, col) && !x.bf16) {
        UNROLL for (int r = 0; r < ROWS; r++)
            UNROLL for (int c = 0; c < N; c++) store(x.at<float>(t + r, col + c * LANES), tile.at[r][c]);
        return;
    }
    float out[ROWS * N * LANES];
    store_tile(out, tile);
    write_some<N>(x, t, col, out);
}

// A column: one number per row; zeros after the last row
void read_column(float* out, const Rows& x, Index count) {
    as_type(x.bf16, [&](auto zero) {
        for (Index t = 0; t < x.count; t++) out[t] = float(*x.at<decltype(zero)>(t));
    });
    std::fill(out + x.count, out + count, 0.0f);
}

void write_column(const Rows& x, const float* in) {
    as_type(x.bf16, [&](auto zero) {
        for (Index t = 0; t < x.count; t++) *x.at<decltype(zero)>(t) = decltype(zero)(in[t]);
    });
}

// Asks for the cache lines that the next chunk or head will read and write, some at every tile of this one: the tensors
// come from beyond the L2 cache, and the hardware does not guess a head's rows, which lie far apart.
struct Ahead {
    Rows parts[12];
    int count = 0, part = 0;
    Index row = 0;

    void clear() { count = part = 0, row = 0; }

    void add(const Rows& rows) {
        if (rows.data && rows.count) parts[count++] = rows;
    }

    void step() {
        for (Index lines = LINES_AHEAD; part < count && lines > 0;) {
            const Rows& x = parts[part];
            const Index size = x.bf16 ? 2 : 4;
            const char* p = x.data + row * x.stride * size;
            // Into L2, and as if to read also what will be written: a prefetch to write would fill L1.
            for (Index at = 0; at < x.width * size; at += 64, lines--) __builtin_prefetch(p + at, 0, 2);
            if (++row == x.count) part++, row = 0;
        }
    }
};

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

// A state: in panels in the workspace, or where the caller has it.
struct State {
    float* pKV;
    const float* outside_KV = nullptr;
};

struct View {
    const float* data;
    Index ld;
};

// One head's walk over its chunks: where the numbers are, and the forward.
struct Head {
    const Args& a;
    const Index n, next, K, V, Kp, Vp, Cl, chunks, segments;  // next: the head after this one; B * H: none
    const bool reads;                                         // whether q takes part
    Place here = {};
    Index tokens = 0, Cp = 0;  // of the current chunk; Cp: padded to ROWS
    mutable Ahead ahead;

    double* exact_C;          // G
    float *G_C, *rest_C;      // G to float, and what that leaves out
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

    // The next n floats of the workspace, on a cache line. Without a base it only counts.
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
            sum += G_C[t] < -1e4f ? -1e4f : G_C[t];  // so that -inf is a decay to zero, not a NaN
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

    // add_product of many columns, with a step ahead at some of them
    template <int N>
    INLINE void add_long_product(Tile<N>& tile, const float* a, Index ld_a, const float* b, Index ld_b, Index n) const {
        for (Index i = 0; i < n; i += 32) {
            ahead.step();
            add_product(tile, a + i, ld_a, b + i * ld_b, ld_b, std::min<Index>(32, n - i));
        }
    }

    // Everything of the chunk that does not depend on a state.
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

    // A state of half of L1 or less is read where it is; rows of a larger one would compete for the same sets.
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

    // E, U, Uout and O of one panel of V, down the rows.
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
        add_product(tile, P_CC + t * Cl, Cl, U_pCV + x * Cl, W, t + ROWS);
        write(o, t, x, tile);
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

    // What the forward of chunk m + 1, or of the next head, will touch.
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
        bool live = a.initial_state;  // a state that is not live is zero and costs nothing
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

struct BackwardHead : Head {
    float *E_pCV, *dO_pCV, *dQS_pCV, *W_pCV, *dKS_pCV;  // dKS, dQS: the gradients of S^T k_t and S^T q_t
    float *UT_VC, *dB_CC, *dP_CC, *share_CC;  // share: of D, in the gradient of g
    State dS;
    float *previous_dS_pKV, *dST_VP, *ST_VP, *states_MpKV;  // states: before every chunk of a segment but the first
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

    // W (the gradient of v) and dKS of one panel of V, up the rows.
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

    // out = sign * D * (rows U^T). D's share in the gradient of g is, or with `add` grows by, weights * (rows U^T).
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

    // crossing_CL[j], summed over its lanes: the shares of all D_ti with i < j <= t, whose decay g_j is a part of.
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

    // By direct sums, without a difference: q.dq - k.dk would be shorter and is useless at large decays.
    void gate_gradients(float state_sum) const {
        const Index rows_to_sum = round_up(Cp, LANES);
        sum_lanes(sums_C, beta_CL, rows_to_sum);
        write_column(rows(a.d_beta, 1), sums_C);
        crossing_shares();
        sum_lanes(gate_C, crossing_CL, rows_to_sum);
        sum_lanes(sums_C, read_CL, rows_to_sum);
        double after = 0;  // reads of the state from token t on
        for (Index t = Cp - 1; t >= 0; t--) gate_C[t] += float(after += sums_C[t]);
        sum_lanes(sums_C, leaving_CL, rows_to_sum);
        double before = double(state_sum) * eG_C[Cp - 1];  // what leaves the chunk and came before token t
        for (Index t = 0; t < Cp; t++) {
            gate_C[t] = float(gate_C[t] + before);
            before += sums_C[t];
        }
        write_column(rows(a.d_g, 1), gate_C);
    }

    // What the chunk before this one, or the next head, will touch.
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

extern "C" {

void gated_delta_rule_forward(const Args* a) {
    const bool reads = a->q.data;
    const Index workspace = Head(*a, 0, 0, reads, nullptr).used;
    share_in_turn(a->B * a->H, a->threads, workspace,
                  [=](Index n, Index next, float* base) { Head(*a, n, next, reads, base).forward(); });
}

void gated_delta_rule_backward(const Args* a) {
    const Index workspace = BackwardHead(*a, 0, 0, nullptr).used;
    share_in_turn(a->B * a->H, a->threads, workspace,
                  [=](Index n, Index next, float* base) { BackwardHead(*a, n, next, base).backward(); });
}
}
