// Everything between a fused projection and the gated delta rule, in one pass: SiLU of the causal depthwise convolution,
// L2-normalised heads of q and k, decay and write strength. The backward writes the whole gradient of the projection in
// place, without concatenation. Channels are processed a vector at a time over all tokens, so that the taps, their inputs
// and the taps' gradients stay in registers.
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "parallel.h"

// Mirrored by delta_rule_inputs.py.
struct DeltaInputs {
    Index B, T, heads, key_dim, queries, values, taps, threads, bf16;  // queries: q's channels, 0 in a write; taps <= 4
    Index x_stride, sequences;   // floats from token to token; batch rows per unit of work
    double beta_scale;           // 1, or 2 for write strengths in (0, 2)
    double l2norm_eps;           // below 0: q and k are divided by their norm
    const char* x;               // [B, T, q k v a b ...]
    const float *weight, *A_log, *dt_bias;  // weight [taps, q k v], oldest tap first; A_log null: no decay, no a in x
    char *q, *k, *v, *beta;      // contiguous [B, T, channels], beta [B, T, heads]
    float* g;                    // [B, T, heads]
    const char *dq, *dk, *dv, *dbeta;
    const float* dg;
    char* dx;                    // [B, T, q k v a b ...], the stride of x
    float *dweight, *dA_log, *ddt_bias;  // sums of a unit: [units, taps, q k v], [units, heads]
};

namespace {

constexpr float TINY = 1e-12f;  // the epsilon of torch.nn.functional.normalize

float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// Channels that are normalised together (a head of q or k) or not at all (a part of v).
struct Span {
    Index start, width;  // in the channels of the convolution
    bool unit;
    char* y;
    const char* dy;
    Index at, stride;  // its position in y and dy: [B T, stride] from `at`
};

constexpr Index PART = 64;  // channels of v at a time

// Scratch of one thread for one span, at most T x Wp numbers each.
struct Workspace {
    float *silu_TW, *slope_TW, *squares_TL, *dots_TL, *scale_T, *along_T;
    Index size = 0;

    Workspace(Index T, Index Wp, float* base) {
        for (float** p : {&silu_TW, &slope_TW}) *p = take(base, T * Wp);
        for (float** p : {&squares_TL, &dots_TL}) *p = take(base, T * LANES);
        for (float** p : {&scale_T, &along_T}) *p = take(base, round_up(T, LANES));
    }

    float* take(float* base, Index n) {
        float* p = base ? base + size : nullptr;
        size += n;
        return p;
    }
};

Index widest(const DeltaInputs& a) { return round_up(std::max(a.key_dim, std::min(a.values, PART)), LANES); }

// One batch row. TAPS = 0: no convolution.
template <class T, int TAPS>
struct Sequence {
    const DeltaInputs& a;
    const Index b, keys, channels, before_b, Wp;  // before_b: a's channels in front of b's; none without decay
    const Workspace work;

    Sequence(const DeltaInputs& a, Index b, float* base)
        : a(a), b(b), keys(a.heads * a.key_dim), channels(a.queries + keys + a.values),
          before_b(a.A_log ? a.heads : 0), Wp(widest(a)), work(a.T, Wp, base) {}

    float scale_of(float squares) const {
        const float norm = std::sqrt(a.l2norm_eps < 0 ? squares : squares + float(a.l2norm_eps));
        return 1.0f / (a.l2norm_eps < 0 ? std::max(norm, TINY) : norm);
    }

    template <class F>
    void each_span(F f) const {
        for (Index c = 0; c < a.queries; c += a.key_dim) f(Span{c, a.key_dim, true, a.q, a.dq, c, keys});
        for (Index c = 0; c < keys; c += a.key_dim) f(Span{a.queries + c, a.key_dim, true, a.k, a.dk, c, keys});
        for (Index c = 0; c < a.values; c += PART)
            f(Span{a.queries + keys + c, std::min(PART, a.values - c), false, a.v, a.dv, c, a.values});
    }

    template <class Char>
    auto at(Char* data, Index stride, Index column) const {
        using Element = std::conditional_t<std::is_const_v<Char>, const T, T>;
        return reinterpret_cast<Element*>(data) + b * a.T * stride + column;
    }

    template <class N>
    INLINE void load_taps(Vec (&taps)[TAPS + 1], Index c, N n) const {  // newest first
        UNROLL for (int j = 0; j < TAPS; j++) taps[j] = load_some(a.weight + (TAPS - 1 - j) * channels + c, n);
    }

    // Calls f(t, z_t, n) with the convolution of n channels from `start`, for every token.
    template <class N, class F>
    INLINE void convolve(Index start, N n, F f) const {
        Vec taps[TAPS + 1], past[TAPS + 1] = {};
        load_taps(taps, start, n);
        const T* x = at(a.x, a.x_stride, start);
        for (Index t = 0; t < a.T; t++, x += a.x_stride) {
            UNROLL for (int j = TAPS; j > 0; j--) past[j] = past[j - 1];
            past[0] = load_some(x, n);
            Vec z = TAPS ? past[0] * taps[0] : past[0];
            UNROLL for (int j = 1; j < TAPS; j++) z += past[j] * taps[j];
            f(t, z);
        }
    }

    // Prefetches row by row: the stride of a loop over tokens is too long for the hardware prefetcher.
    template <class P>
    void fetch(P* first, Index stride, Index width) const {
        for (Index t = 0; t < a.T; t++)
            for (Index c = 0; c < width; c += 64 / Index(sizeof(T)))
                __builtin_prefetch(first + t * stride + c, !std::is_const_v<P>);
    }

    INLINE void add(float* sum_L, Vec x) const { store(sum_L, load(sum_L) + x); }

    void forward() const {
        fetch(at(a.x, a.x_stride, 0), a.x_stride, channels + before_b + a.heads);
        each_span([&](const Span& span) {
            std::fill(work.squares_TL, work.squares_TL + a.T * LANES, 0.0f);
            each_vector(span.width, [&](Index c, auto n) {
                convolve(span.start + c, n, [&](Index t, Vec z) {
                    const Vec silu = z * sigmoid(z);
                    store(work.silu_TW + t * Wp + c, silu);
                    if (span.unit) add(work.squares_TL + t * LANES, silu * silu);
                });
            });
            T* y = at(span.y, span.stride, span.at);
            for (Index t = 0; t < a.T; t++, y += span.stride) {
                const float scale = span.unit ? scale_of(sum_of(load(work.squares_TL + t * LANES))) : 1.0f;
                each_vector(span.width, [&](Index c, auto n) {
                    store_some(y + c, load(work.silu_TW + t * Wp + c) * scale, n);
                });
            }
        });
        for (Index t = 0; t < a.T; t++) {
            const T* gates = at(a.x, a.x_stride, channels) + t * a.x_stride;
            for (Index h = 0; h < a.heads; h++) {
                const Index i = (b * a.T + t) * a.heads + h;
                if (a.A_log) a.g[i] = -std::exp(a.A_log[h]) * softplus(float(gates[h]) + a.dt_bias[h]);
                const float beta = sigmoid(float(gates[before_b + h])) * float(a.beta_scale);
                reinterpret_cast<T*>(a.beta)[i] = T(beta);
            }
        }
    }

    // Adds to the sums of the unit.
    void backward(float* dweight, float* dA_log, float* ddt_bias) const {
        fetch(at(a.x, a.x_stride, 0), a.x_stride, channels + before_b + a.heads);
        fetch(at(a.dx, a.x_stride, 0), a.x_stride, channels + before_b + a.heads);
        for (auto [dy, width] : {std::pair(a.dq, a.queries), std::pair(a.dk, keys), std::pair(a.dv, a.values)})
            fetch(at(dy, width, 0), width, width);
        each_span([&](const Span& span) {
            linearize(span);
            each_vector(span.width, [&](Index c, auto n) { backward_vector(span, c, n, dweight); });
        });
        for (Index t = 0; t < a.T; t++) {
            const T* gates = at(a.x, a.x_stride, channels) + t * a.x_stride;
            T* d_gates = at(a.dx, a.x_stride, channels) + t * a.x_stride;
            for (Index h = 0; h < a.heads; h++) {
                const Index i = (b * a.T + t) * a.heads + h;
                const float beta = sigmoid(float(gates[before_b + h]));
                const float dbeta = float(reinterpret_cast<const T*>(a.dbeta)[i]) * float(a.beta_scale);
                d_gates[before_b + h] = T(dbeta * beta * (1.0f - beta));
                if (!a.A_log) continue;
                const float inside = float(gates[h]) + a.dt_bias[h], scaled = -a.dg[i] * std::exp(a.A_log[h]);
                const float d = scaled * sigmoid(inside);
                dA_log[h] += scaled * softplus(inside);
                ddt_bias[h] += d;
                d_gates[h] = T(d);
            }
        }
    }

    // SiLU and its slope at every token, and the coefficients of the normalisation's gradient: scale * dy - along * silu.
    void linearize(const Span& span) const {
        std::fill(work.squares_TL, work.squares_TL + a.T * LANES, 0.0f);
        std::fill(work.dots_TL, work.dots_TL + a.T * LANES, 0.0f);
        each_vector(span.width, [&](Index c, auto n) {
            const T* dy = at(span.dy, span.stride, span.at + c);
            convolve(span.start + c, n, [&](Index t, Vec z) {
                const Vec s = sigmoid(z), silu = z * s;
                store(work.silu_TW + t * Wp + c, silu);
                store(work.slope_TW + t * Wp + c, s * (1.0f + z * (1.0f - s)));
                if (!span.unit) return;
                add(work.squares_TL + t * LANES, silu * silu);
                add(work.dots_TL + t * LANES, silu * load_some(dy + t * span.stride, n));
            });
        });
        for (Index t = 0; t < a.T; t++) {
            const float squares = sum_of(load(work.squares_TL + t * LANES));
            const float scale = span.unit ? scale_of(squares) : 1.0f;
            work.scale_T[t] = scale;
            work.along_T[t] = a.l2norm_eps >= 0 || std::sqrt(squares) > TINY ? sum_of(load(work.dots_TL + t * LANES)) * scale * scale * scale : 0.0f;
        }
    }

    // Back through normalisation, SiLU and convolution: one vector of channels, from the last token to the first.
    template <class N>
    INLINE void backward_vector(const Span& span, Index c, N n, float* dweight) const {
        const Index column = span.start + c;
        Vec taps[TAPS + 1], d_taps[TAPS + 1] = {}, future[TAPS + 1] = {};  // future[j]: dz at token t + j
        load_taps(taps, column, n);
        const T* dy = at(span.dy, span.stride, span.at + c);
        T* dx = at(a.dx, a.x_stride, column);
        for (Index t = a.T - 1; t >= 0; t--) {
            const Vec silu = load(work.silu_TW + t * Wp + c), slope = load(work.slope_TW + t * Wp + c);
            UNROLL for (int j = TAPS; j > 0; j--) future[j] = future[j - 1];
            future[0] = (load_some(dy + t * span.stride, n) * work.scale_T[t] - silu * work.along_T[t]) * slope;
            store(work.slope_TW + t * Wp + c, future[0]);
            Vec d = TAPS ? future[0] * taps[0] : future[0];
            UNROLL for (int j = 1; j < TAPS; j++) d += future[j] * taps[j];
            store_some(dx + t * a.x_stride, d, n);
        }
        // A separate loop: x and dx have the same offset in their pages, so a load of one would wait for the store to the
        // other (4K aliasing).
        const T* x = at(a.x, a.x_stride, column);
        UNROLL for (int j = 0; j < TAPS; j++) future[j] = Vec{};
        for (Index t = TAPS ? a.T - 1 : -1; t >= 0; t--) {
            UNROLL for (int j = TAPS; j > 0; j--) future[j] = future[j - 1];
            future[0] = load(work.slope_TW + t * Wp + c);
            const Vec input = load_some(x + t * a.x_stride, n);
            UNROLL for (int j = 0; j < TAPS; j++) d_taps[j] += future[j] * input;
        }
        UNROLL for (int j = 0; j < TAPS; j++) {
            float* sum = dweight + (TAPS - 1 - j) * channels + column;
            store_some(sum, load_some(sum, n) + d_taps[j], n);
        }
    }
};

// Calls f(T(), the number of taps as a constant).
template <class F>
void as_types(const DeltaInputs& a, F f) {
    as_type(a.bf16, [&](auto type) {
        switch (a.taps) {
            case 0: return f(type, std::integral_constant<int, 0>());
            case 1: return f(type, std::integral_constant<int, 1>());
            case 2: return f(type, std::integral_constant<int, 2>());
            case 3: return f(type, std::integral_constant<int, 3>());
            default: return f(type, std::integral_constant<int, 4>());
        }
    });
}

template <class F>
void each_unit(const DeltaInputs& a, F work) {
    const Index workspace = Workspace(a.T, widest(a), nullptr).size;
    share((a.B + a.sequences - 1) / a.sequences, a.threads, workspace, [=](Index unit, float* base) {
        work(unit, unit * a.sequences, std::min(a.B, (unit + 1) * a.sequences), base);
    });
}

}  // namespace

extern "C" {

void delta_inputs_forward(const DeltaInputs* a) {
    as_types(*a, [=](auto type, auto taps) {
        each_unit(*a, [=](Index, Index first, Index last, float* base) {
            for (Index b = first; b < last; b++) Sequence<decltype(type), taps()>(*a, b, base).forward();
        });
    });
}

void delta_inputs_backward(const DeltaInputs* a) {
    const Index weights = a->taps * (a->queries + a->heads * a->key_dim + a->values);
    as_types(*a, [=](auto type, auto taps) {
        each_unit(*a, [=](Index unit, Index first, Index last, float* base) {
            float* dweight = a->dweight + unit * weights;
            float* dA_log = a->A_log ? a->dA_log + unit * a->heads : nullptr;
            float* ddt_bias = a->A_log ? a->ddt_bias + unit * a->heads : nullptr;
            std::fill(dweight, dweight + weights, 0.0f);
            for (float* sums : {dA_log, ddt_bias})
                if (sums) std::fill(sums, sums + a->heads, 0.0f);
            for (Index b = first; b < last; b++)
                Sequence<decltype(type), taps()>(*a, b, base).backward(dweight, dA_log, ddt_bias);
        });
    });
}
}
