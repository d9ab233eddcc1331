// Causal softmax attention of a short window on itself, with RoPE, out of a fused projection and backwards into one.
// One thread owns a (batch row, head); scores are never written to memory, the backward computes them again.
#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "tile.h"

// Mirrored by ops/attention.py.
struct WindowAttention {
    Index B, T, H, D, threads, bf16;
    double scale;
    const char* qkv;          // [B, T, 3, H, D]
    const float *cos, *sin;   // [T, D], the halves of D alike
    char* o;                  // [B, T, H, D]
    float* log_sums;          // [B, H, T]: of the exponentials of a row's scores
    const char* d_o;          // [B, T, H, D]
    char* d_qkv;              // [B, T, 3, H, D]
};

namespace {

template <int N>
INLINE void put(float* out, Index ld, const Tile<N>& tile) {
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int c = 0; c < N; c++) store(out + r * ld + c * LANES, tile.at[r][c]);
}

// One (batch row, head). Matrices are padded with zeros: tokens to Tp, channels to Dp.
template <class T>
struct Window {
    const WindowAttention& a;
    const Index b, h, Tp, Dp;
    float *q_TD, *k_TD, *v_TD, *kT_DT, *P_TT;  // q is scaled
    Index used = 0;

    Window(const WindowAttention& a, Index n, float* base)
        : a(a), b(n / a.H), h(n % a.H), Tp(round_up(a.T, TOKENS)), Dp(round_up(a.D, LANES)) {
        for (float** p : {&q_TD, &k_TD, &v_TD, &kT_DT}) *p = take(base, Tp * Dp);
        P_TT = take(base, Tp * Tp);
    }

    float* take(float* base, Index n) {
        float* p = base ? base + used : nullptr;
        used += n;
        return p;
    }

    // This head's row t of q (part 0), k or v in a [B, T, parts, H, D].
    template <class Char>
    auto row(Char* data, Index parts, Index part, Index t) const {
        using Element = std::conditional_t<std::is_const_v<Char>, const T, T>;
        return reinterpret_cast<Element*>(data) + (((b * a.T + t) * parts + part) * a.H + h) * a.D;
    }

    void read(float* out_TD, const char* data, Index parts, Index part) const {
        std::fill(out_TD, out_TD + Tp * Dp, 0.0f);
        for (Index t = 0; t < a.T; t++) {
            const T* in = row(data, parts, part, t);
            for (Index d = 0; d < a.D; d++) out_TD[t * Dp + d] = float(in[d]);
        }
    }

    // Turns the pairs (d, d + D / 2) of every row; backwards with sign = -1.
    void rotate(float* x_TD, float sign, float scale) const {
        const Index half = a.D / 2;
        for (Index t = 0; t < a.T; t++) {
            float *x1 = x_TD + t * Dp, *x2 = x1 + half;
            const float *cos = a.cos + t * a.D, *sin = a.sin + t * a.D;
            for (Index d = 0; d < half; d++) {
                const float y1 = x1[d] * cos[d] - x2[d] * sin[d] * sign;
                const float y2 = x2[d] * cos[d] + x1[d] * sin[d] * sign;
                x1[d] = y1 * scale;
                x2[d] = y2 * scale;
            }
        }
    }

    void load_qkv() const {
        read(q_TD, a.qkv, 3, 0);
        read(k_TD, a.qkv, 3, 1);
        read(v_TD, a.qkv, 3, 2);
        rotate(q_TD, 1.0f, float(a.scale));
        rotate(k_TD, 1.0f, 1.0f);
    }

    void transpose_all(float* out_DT, const float* in_TD) const {
        for (Index t = 0; t < Tp; t += LANES)
            for (Index d = 0; d < Dp; d += LANES) transpose(out_DT + d * Tp + t, Tp, in_TD + t * Dp + d, Dp);
    }

    // out[t, s] = x[t] . y[s] for s up to t's tile
    void products(float* out_TT, const float* x_TD, const float* yT_DT) const {
        for (Index t = 0; t < a.T; t += ROWS)
            each_panel(std::min(Tp, round_up(t + ROWS, LANES)), [&](auto n, Index s) {
                Tile<n()> tile = {};
                add_product(tile, x_TD + t * Dp, Dp, yT_DT + s, Tp, a.D);
                put(out_TT + t * Tp + s, Tp, tile);
            });
    }

    // out[t] = sum over s <= t of x[t, s] y[s]
    void causal_product(float* out_TD, const float* x_TT, const float* y_TD) const {
        for (Index t = 0; t < a.T; t += ROWS)
            each_panel(Dp, [&](auto n, Index d) {
                Tile<n()> tile = {};
                add_product(tile, x_TT + t * Tp, Tp, y_TD + d, Dp, std::min(t + ROWS, a.T));
                put(out_TD + t * Dp + d, Dp, tile);
            });
    }

    // out[s] = sum over t >= s of x[t, s] y[t]
    void transposed_product(float* out_TD, const float* x_TT, const float* y_TD) const {
        for (Index s = 0; s < a.T; s += ROWS)
            each_panel(Dp, [&](auto n, Index d) {
                Tile<n()> tile = {};
                add_transposed(tile, x_TT + s * Tp + s, Tp, y_TD + s * Dp + d, Dp, a.T - s);
                put(out_TD + s * Dp + d, Dp, tile);
            });
    }

    void write(char* data, Index parts, Index part, const float* in_TD) const {
        for (Index t = 0; t < a.T; t++) {
            T* out = row(data, parts, part, t);
            for (Index d = 0; d < a.D; d++) out[d] = T(in_TD[t * Dp + d]);
        }
    }

    float* log_sum(Index t) const { return a.log_sums + (b * a.H + h) * a.T + t; }

    void forward() const {
        load_qkv();
        transpose_all(kT_DT, k_TD);
        products(P_TT, q_TD, kT_DT);
        for (Index t = 0; t < a.T; t++) {
            float* row = P_TT + t * Tp;
            const float largest = *std::max_element(row, row + t + 1);
            std::fill(row + t + 1, row + Tp, largest);
            for (Index s = 0; s <= t; s += LANES) store(row + s, exp_negative(load(row + s) - largest));
            float sum = 0.0f;
            for (Index s = 0; s <= t; s++) sum += row[s];
            for (Index s = 0; s <= t; s++) row[s] /= sum;
            std::fill(row + t + 1, row + Tp, 0.0f);
            *log_sum(t) = largest + std::log(sum);
        }
        causal_product(q_TD, P_TT, v_TD);
        write(a.o, 1, 0, q_TD);
    }
};

template <class T>
struct BackwardWindow : Window<T> {
    using Base = Window<T>;
    using Base::a, Base::Tp, Base::Dp, Base::q_TD, Base::k_TD, Base::v_TD, Base::kT_DT, Base::P_TT;
    float *do_TD, *grad_TD, *dP_TT;

    BackwardWindow(const WindowAttention& a, Index n, float* base) : Base(a, n, base) {
        for (float** p : {&do_TD, &grad_TD}) *p = this->take(base, Tp * Dp);
        dP_TT = this->take(base, Tp * Tp);
    }

    void backward() const {
        this->load_qkv();
        this->transpose_all(kT_DT, k_TD);
        this->products(P_TT, q_TD, kT_DT);
        this->read(do_TD, a.d_o, 1, 0);
        this->transpose_all(kT_DT, v_TD);
        this->products(dP_TT, do_TD, kT_DT);
        for (Index t = 0; t < a.T; t++) {
            float *P = P_TT + t * Tp, *dP = dP_TT + t * Tp;
            const float log_sum = *this->log_sum(t);
            std::fill(P + t + 1, P + Tp, log_sum);
            for (Index s = 0; s <= t; s += LANES) {  // rounding may lift a score above its row's log-sum
                const Vec score = load(P + s) - log_sum;
                store(P + s, exp_negative(score > 0.0f ? Vec{} : score));
            }
            std::fill(P + t + 1, P + Tp, 0.0f);
            std::fill(dP + t + 1, dP + Tp, 0.0f);
            float along = 0.0f;
            for (Index s = 0; s <= t; s++) along += P[s] * dP[s];
            for (Index s = 0; s <= t; s++) dP[s] = P[s] * (dP[s] - along);
        }
        this->transposed_product(grad_TD, P_TT, do_TD);
        this->write(a.d_qkv, 3, 2, grad_TD);
        this->transposed_product(grad_TD, dP_TT, q_TD);
        this->rotate(grad_TD, -1.0f, 1.0f);
        this->write(a.d_qkv, 3, 1, grad_TD);
        this->causal_product(grad_TD, dP_TT, k_TD);
        this->rotate(grad_TD, -1.0f, float(a.scale));
        this->write(a.d_qkv, 3, 0, grad_TD);
    }
};

}  // namespace

extern "C" {

void window_attention_forward(const WindowAttention* a) {
    as_type(a->bf16, [=](auto type) {
        using T = decltype(type);
        const Index workspace = Window<T>(*a, 0, nullptr).used;
        share(a->B * a->H, a->threads, workspace, [=](Index n, float* base) { Window<T>(*a, n, base).forward(); });
    });
}

void window_attention_backward(const WindowAttention* a) {
    as_type(a->bf16, [=](auto type) {
        using T = decltype(type);
        const Index workspace = BackwardWindow<T>(*a, 0, nullptr).used;
        share(a->B * a->H, a->threads, workspace,
              [=](Index n, float* base) { BackwardWindow<T>(*a, n, base).backward(); });
    });
}
}
