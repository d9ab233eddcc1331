// Causal softmax attention of a short window on itself, with RoPE and RMSNorm of queries and keys (optional), from a fused
// projection; the backward writes one gradient of it. One thread owns a (batch row, head). Neither scores nor normed
// queries and keys are stored: the backward recomputes them.
#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "tile.h"

// Mirrored by ops/attention.py.
struct WindowAttention {
    Index B, T, H, D, threads, bf16;
    double scale, eps;
    const char* qkv;          // [B, T, 3, H, D]
    const float* qk_weight;   // [2, D], of the RMSNorm of q and of k; null for none
    const float *cos, *sin;   // [T, D], the halves of D alike
    char* o;                  // [B, T, H, D]
    float* log_sums;          // [B, H, T]: of the exponentials of a row's scores
    const char* d_o;          // [B, T, H, D]
    char* d_qkv;              // [B, T, 3, H, D]
    float* d_qk_weight;       // [B, H, 2, D]: each one's part
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

    // Rows past T are zeros.
    void read(float* out_TD, const char* data, Index parts, Index part) const {
        for (Index t = 0; t < a.T; t++) {
            const T* in = row(data, parts, part, t);
            for (Index d = 0; d < a.D; d += LANES) store(out_TD + t * Dp + d, load_some(in + d, a.D - d));
        }
        std::fill(out_TD + a.T * Dp, out_TD + Tp * Dp, 0.0f);
    }

    template <class X>
    float rstd_of(const X* x) const {
        Vec squares = {};
        each_vector(a.D, [&](Index d, auto n) {
            const Vec v = load_some(x + d, n);
            squares += v * v;
        });
        return float(1.0 / std::sqrt(double(sum_of(squares)) / double(a.D) + a.eps));
    }

    // RMSNorm of q (part 0) or k (part 1), token by token.
    void norm(float* x_TD, Index part) const {
        if (!a.qk_weight) return;
        const float* weight = a.qk_weight + part * a.D;
        for (float* x = x_TD; x < x_TD + a.T * Dp; x += Dp) {
            const float rstd = rstd_of(x);
            for (Index d = 0; d < a.D; d += LANES) store(x + d, load(x + d) * rstd * load_some(weight + d, a.D - d));
        }
    }

    // Rotates the pairs (d, d + D / 2) of every row; sign = -1 rotates back.
    void rotate(float* x_TD, float sign, float scale) const {
        const Index half = a.D / 2;
        for (Index t = 0; t < a.T; t++) {
            float *x1 = x_TD + t * Dp, *x2 = x1 + half;
            const float *cos = a.cos + t * a.D, *sin = a.sin + t * a.D;
            for (Index d = 0; d < half; d += LANES) {
                const Index n = half - d;
                const Vec c = load_some(cos + d, n) * scale, s = load_some(sin + d, n) * (sign * scale);
                const Vec y1 = load_some(x1 + d, n), y2 = load_some(x2 + d, n);
                store_some(x1 + d, y1 * c - y2 * s, n);
                store_some(x2 + d, y2 * c + y1 * s, n);
            }
        }
    }

    void load_qkv() const {
        read(q_TD, a.qkv, 3, 0);
        read(k_TD, a.qkv, 3, 1);
        read(v_TD, a.qkv, 3, 2);
        norm(q_TD, 0);
        norm(k_TD, 1);
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
                add_lower_product(tile, x_TT + t * Tp, Tp, y_TD + d, Dp, t);
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
            for (Index d = 0; d < a.D; d += LANES) store_some(out + d, load(in_TD + t * Dp + d), a.D - d);
        }
    }

    // Calls f(s) for every vector of scores that token t may see.
    template <class F>
    INLINE void each_score(Index t, F f) const {
        for (Index s = 0; s <= t; s += LANES) f(s);
    }

    // x where its column, from s on, is not beyond t.
    INLINE static Vec up_to(Index t, Index s, Vec x, float beyond) {
        IntVec column;
        UNROLL for (int i = 0; i < LANES; i++) column[i] = i;
        return column > int(t - s) ? Vec{} + beyond : x;
    }

    float* log_sum(Index t) const { return a.log_sums + (b * a.H + h) * a.T + t; }

    void forward() const {
        load_qkv();
        transpose_all(kT_DT, k_TD);
        products(P_TT, q_TD, kT_DT);
        for (Index t = 0; t < a.T; t++) {
            float* row = P_TT + t * Tp;
            Vec largest = {};
            each_score(t, [&](Index s) {
                const Vec score = up_to(t, s, load(row + s), -INFINITY);
                largest = s == 0 ? score : score > largest ? score : largest;
                store(row + s, score);
            });
            const float most = largest_of(largest);
            Vec sums = {};
            each_score(t, [&](Index s) {
                const Vec e = exp_negative(load(row + s) - most);
                sums += e;
                store(row + s, e);
            });
            const float sum = sum_of(sums), inverse = 1.0f / sum;
            each_score(t, [&](Index s) { store(row + s, load(row + s) * inverse); });
            std::fill(row + round_up(t + 1, LANES), row + Tp, 0.0f);
            *log_sum(t) = most + std::log(sum);
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

    // The gradient of what `norm` has read from that of what it has written, and the part of the weight's.
    void norm_backward(float* d_TD, Index part) const {
        if (!a.qk_weight) return;
        const float* weight = a.qk_weight + part * a.D;
        float* d_weight = a.d_qk_weight + ((this->b * a.H + this->h) * 2 + part) * a.D;
        std::fill(d_weight, d_weight + a.D, 0.0f);
        for (Index t = 0; t < a.T; t++) {
            const T* x = this->row(a.qkv, 3, part, t);
            float* dy = d_TD + t * Dp;
            const float rstd = this->rstd_of(x);
            Vec dots = {};
            each_vector(a.D, [&](Index d, auto n) {
                const Vec normed = load_some(x + d, n) * rstd, along = load_some(dy + d, n) * normed;
                store_some(d_weight + d, load_some(d_weight + d, n) + along, n);
                dots += along * load_some(weight + d, n);
            });
            const float mean = sum_of(dots) / float(a.D);
            each_vector(a.D, [&](Index d, auto n) {
                const Vec normed = load_some(x + d, n) * rstd;
                store_some(dy + d, rstd * (load_some(dy + d, n) * load_some(weight + d, n) - normed * mean), n);
            });
        }
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
            Vec sums = {};
            this->each_score(t, [&](Index s) {  // rounding may lift a score above its row's log-sum
                const Vec score = load(P + s) - log_sum;
                const Vec p = Base::up_to(t, s, exp_negative(score > 0.0f ? Vec{} : score), 0.0f);
                const Vec d = Base::up_to(t, s, load(dP + s), 0.0f);
                sums += p * d;
                store(P + s, p);
                store(dP + s, d);
            });
            const float along = sum_of(sums);
            this->each_score(t, [&](Index s) { store(dP + s, load(P + s) * (load(dP + s) - along)); });
            for (float* row : {P, dP}) std::fill(row + round_up(t + 1, LANES), row + Tp, 0.0f);
        }
        this->transposed_product(grad_TD, P_TT, do_TD);
        this->write(a.d_qkv, 3, 2, grad_TD);
        this->transposed_product(grad_TD, dP_TT, q_TD);
        this->rotate(grad_TD, -1.0f, 1.0f);
        norm_backward(grad_TD, 1);
        this->write(a.d_qkv, 3, 1, grad_TD);
        this->causal_product(grad_TD, dP_TT, k_TD);
        this->rotate(grad_TD, -1.0f, float(a.scale));
        norm_backward(grad_TD, 0);
        this->write(a.d_qkv, 3, 0, grad_TD);
    }
};

// Runs f(window) for every batch row and head. A row's heads are adjacent in memory: one thread takes them in turn.
template <class W, class F>
void share_heads(const WindowAttention& a, F f) {
    const Index heads = a.B >= 2 * a.threads ? a.H : 1;
    share(a.B * a.H / heads, a.threads, W(a, 0, nullptr).used, [&](Index i, float* base) {
        for (Index n = i * heads; n < (i + 1) * heads; n++) f(W(a, n, base));
    });
}

}  // namespace

extern "C" {

void window_attention_forward(const WindowAttention* a) {
    as_type(a->bf16, [=](auto type) {
        using T = decltype(type);
        share_heads<Window<T>>(*a, [](const Window<T>& window) { window.forward(); });
    });
}

void window_attention_backward(const WindowAttention* a) {
    as_type(a->bf16, [=](auto type) {
        using T = decltype(type);
        share_heads<BackwardWindow<T>>(*a, [](const BackwardWindow<T>& window) { window.backward(); });
    });
}
}
