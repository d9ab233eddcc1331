// What a block does between its matrix products, each in one sweep over memory: RMSNorm (gated or not) and SwiGLU.
// Rows are shared in blocks of a fixed size, so that sums over rows do not depend on the number of threads.
// `scale` (null: ones): a product's rows are to be multiplied by it where they are read; gradients are those of the
// rows as they lie there. The norm in front of the product leaves that factor to its readers (ops/half_blocks.py).
#include <algorithm>
#include <cmath>

#include "parallel.h"

namespace {

constexpr Index BLOCK = 32;  // mirrored by rms_norm.py

template <class F>
void each_block(Index rows, Index threads, Index workspace, F work) {
    share((rows + BLOCK - 1) / BLOCK, threads, workspace, [=](Index block, float* base) {
        work(block, block * BLOCK, std::min(rows, (block + 1) * BLOCK), base);
    });
}

INLINE float scale_of(const float* scale, Index row) { return scale ? scale[row] : 1.0f; }

}  // namespace

extern "C" {

// [rows, heads, width], contiguous; the gate (null: none) [rows, heads * width] with a stride between rows.
struct Norm {
    Index rows, heads, width, gate_stride, threads, x_bf16, y_bf16;
    double eps;
    const char *x, *gate;  // the gate has the type of x
    const float *weight, *scale;  // [width]; scale of the gate [rows]
    char* y;
    float* rstd;  // [rows, heads]
    const char* dy;
    char *dx, *dgate;  // dgate is contiguous
    float* dweight;    // [blocks, width]
};

// y = x * rstd * weight * SiLU(gate)
void norm_forward(const Norm* a) {
    as_type(a->x_bf16, [=](auto x_type) {
        as_type(a->y_bf16, [=](auto y_type) {
            using X = decltype(x_type);
            using Y = decltype(y_type);
            each_block(a->rows, a->threads, 0, [=](Index, Index first, Index last, float*) {
                for (Index i = first * a->heads; i < last * a->heads; i++) {
                    const X* x = reinterpret_cast<const X*>(a->x) + i * a->width;
                    const X* gate = reinterpret_cast<const X*>(a->gate);
                    if (gate) gate += i / a->heads * a->gate_stride + i % a->heads * a->width;
                    const float gate_scale = scale_of(a->scale, i / a->heads);
                    Y* y = reinterpret_cast<Y*>(a->y) + i * a->width;
                    Vec squares = {};
                    each_vector(a->width, [&](Index c, auto n) {
                        const Vec v = load_some(x + c, n);
                        squares += v * v;
                    });
                    const float rstd = float(1.0 / std::sqrt(double(sum_of(squares)) / double(a->width) + a->eps));
                    a->rstd[i] = rstd;
                    each_vector(a->width, [&](Index c, auto n) {
                        Vec v = load_some(x + c, n) * rstd * load_some(a->weight + c, n);
                        if (gate) {
                            const Vec z = load_some(gate + c, n) * gate_scale;
                            v *= z * sigmoid(z);
                        }
                        store_some(y + c, v, n);
                    });
                }
            });
        });
    });
}

void norm_backward(const Norm* a) {
    as_type(a->x_bf16, [=](auto x_type) {
        as_type(a->y_bf16, [=](auto y_type) {
            using X = decltype(x_type);
            using Y = decltype(y_type);
            each_block(a->rows, a->threads, 0, [=](Index block, Index first, Index last, float*) {
                float* dweight = a->dweight + block * a->width;
                std::fill(dweight, dweight + a->width, 0.0f);
                for (Index i = first * a->heads; i < last * a->heads; i++) {
                    const Index at = i * a->width;
                    const X* x = reinterpret_cast<const X*>(a->x) + at;
                    const X* gate = reinterpret_cast<const X*>(a->gate);
                    if (gate) gate += i / a->heads * a->gate_stride + i % a->heads * a->width;
                    const float gate_scale = scale_of(a->scale, i / a->heads);
                    const Y* dy = reinterpret_cast<const Y*>(a->dy) + at;
                    X* dx = reinterpret_cast<X*>(a->dx) + at;
                    X* dgate = reinterpret_cast<X*>(a->dgate) + at;
                    const float rstd = a->rstd[i];
                    Vec dots = {};
                    each_vector(a->width, [&](Index c, auto n) {  // of the normed x and its gradient
                        const Vec normed = load_some(x + c, n) * rstd, w = load_some(a->weight + c, n);
                        Vec d = load_some(dy + c, n);
                        if (gate) {
                            const Vec z = load_some(gate + c, n) * gate_scale, s = sigmoid(z);
                            store_some(dgate + c, d * normed * w * s * (1.0f + z * (1.0f - s)) * gate_scale, n);
                            d *= z * s;
                        }
                        store_some(dweight + c, load_some(dweight + c, n) + d * normed, n);
                        dots += d * w * normed;
                    });
                    const float mean = sum_of(dots) / float(a->width);
                    each_vector(a->width, [&](Index c, auto n) {
                        Vec d = load_some(dy + c, n) * load_some(a->weight + c, n);
                        if (gate) {
                            const Vec z = load_some(gate + c, n) * gate_scale;
                            d *= z * sigmoid(z);
                        }
                        store_some(dx + c, rstd * (d - load_some(x + c, n) * rstd * mean), n);
                    });
                }
            });
        });
    });
}

// An RMSNorm without its weight, in front of a product: [rows, width], contiguous.
struct Rows {
    Index rows, width, threads, bf16;
    double eps;
    const float* x;
    float* rstd;           // [rows]
    char* narrow;          // x in bf16; null: not asked for
    const char* dproduct;  // the gradient with respect to the product's input, rstd held fixed
    const float* dy;       // another gradient of x, added; null: none
    float* dx;             // may be dproduct or dy
};

// rstd = 1 / rms(x)
void rows_forward(const Rows* a) {
    each_block(a->rows, a->threads, 0, [=](Index, Index first, Index last, float*) {
        for (Index r = first; r < last; r++) {
            const float* x = a->x + r * a->width;
            Bf16* narrow = reinterpret_cast<Bf16*>(a->narrow) + r * a->width;
            Vec squares = {};
            each_vector(a->width, [&](Index c, auto n) {
                const Vec v = load_some(x + c, n);
                squares += v * v;
                if (a->narrow) store_some(narrow + c, v, n);
            });
            a->rstd[r] = float(1.0 / std::sqrt(double(sum_of(squares)) / double(a->width) + a->eps));
        }
    });
}

// dx = dy + dproduct - x rstd^2 mean(x dproduct): rstd, too, depends on x
void rows_backward(const Rows* a) {
    as_type(a->bf16, [=](auto type) {
        using T = decltype(type);
        each_block(a->rows, a->threads, 0, [=](Index, Index first, Index last, float*) {
            for (Index r = first; r < last; r++) {
                const float *x = a->x + r * a->width, *dy = a->dy ? a->dy + r * a->width : nullptr;
                const T* d = reinterpret_cast<const T*>(a->dproduct) + r * a->width;
                float* dx = a->dx + r * a->width;
                Vec dots = {};
                each_vector(a->width, [&](Index c, auto n) { dots += load_some(x + c, n) * load_some(d + c, n); });
                const float along = sum_of(dots) * a->rstd[r] * a->rstd[r] / float(a->width);
                each_vector(a->width, [&](Index c, auto n) {
                    Vec v = load_some(d + c, n) - load_some(x + c, n) * along;
                    if (dy) v += load_some(dy + c, n);
                    store_some(dx + c, v, n);
                });
            }
        });
    });
}

// x [rows, 2 width]: gate and up side by side; y [rows, width]
struct SwiGLU {
    Index rows, width, threads, bf16;
    const char* x;
    const float* scale;  // of x [rows]
    char* y;             // backwards, null: not asked for again; may be dy
    const char* dy;
    char* dx;
};

void swiglu_forward(const SwiGLU* a) {
    as_type(a->bf16, [=](auto type) {
        using T = decltype(type);
        each_block(a->rows, a->threads, 0, [=](Index, Index first, Index last, float*) {
            for (Index r = first; r < last; r++) {
                const T *x = reinterpret_cast<const T*>(a->x) + r * 2 * a->width, *x_up = x + a->width;
                T* y = reinterpret_cast<T*>(a->y) + r * a->width;
                const float scale = scale_of(a->scale, r);
                each_vector(a->width, [&](Index c, auto n) {
                    const Vec z = load_some(x + c, n) * scale;
                    store_some(y + c, z * sigmoid(z) * (load_some(x_up + c, n) * scale), n);
                });
            }
        });
    });
}

void swiglu_backward(const SwiGLU* a) {
    as_type(a->bf16, [=](auto type) {
        using T = decltype(type);
        each_block(a->rows, a->threads, 0, [=](Index, Index first, Index last, float*) {
            for (Index r = first; r < last; r++) {
                const T* x = reinterpret_cast<const T*>(a->x) + r * 2 * a->width;
                const T* dy = reinterpret_cast<const T*>(a->dy) + r * a->width;
                const T* x_up = x + a->width;
                T* y = a->y ? reinterpret_cast<T*>(a->y) + r * a->width : nullptr;
                T *dx = reinterpret_cast<T*>(a->dx) + r * 2 * a->width, *dx_up = dx + a->width;
                const float scale = scale_of(a->scale, r);
                each_vector(a->width, [&](Index c, auto n) {
                    const Vec z = load_some(x + c, n) * scale, s = sigmoid(z), silu = z * s;
                    const Vec up = load_some(x_up + c, n) * scale, d = load_some(dy + c, n) * scale;
                    if (y) store_some(y + c, silu * up, n);
                    store_some(dx + c, d * up * s * (1.0f + z * (1.0f - s)), n);
                    store_some(dx_up + c, d * silu, n);
                });
            }
        });
    });
}
}
