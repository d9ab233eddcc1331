// The elementwise work between a block's matrix products, each in one pass over memory: RMSNorm (gated or not), SwiGLU.
// Threads take blocks of a fixed number of rows, so that sums over rows do not depend on the number of threads.
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

}  // namespace

extern "C" {

// [rows, heads, width], contiguous; the gate (null: none) [rows, heads * width] with a stride between rows.
struct Norm {
    Index rows, heads, width, gate_stride, threads, x_bf16, y_bf16;
    double eps;
    const char *x, *gate;  // the gate has the type of x
    const float* weight;  // [width]
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
                            const Vec z = load_some(gate + c, n);
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
                    const Y* dy = reinterpret_cast<const Y*>(a->dy) + at;
                    X* dx = reinterpret_cast<X*>(a->dx) + at;
                    X* dgate = reinterpret_cast<X*>(a->dgate) + at;
                    const float rstd = a->rstd[i];
                    Vec dots = {};
                    each_vector(a->width, [&](Index c, auto n) {  // of the normed x and its gradient
                        const Vec normed = load_some(x + c, n) * rstd, w = load_some(a->weight + c, n);
                        Vec d = load_some(dy + c, n);
                        if (gate) {
                            const Vec z = load_some(gate + c, n), s = sigmoid(z);
                            store_some(dgate + c, d * normed * w * s * (1.0f + z * (1.0f - s)), n);
                            d *= z * s;
                        }
                        store_some(dweight + c, load_some(dweight + c, n) + d * normed, n);
                        dots += d * w * normed;
                    });
                    const float mean = sum_of(dots) / float(a->width);
                    each_vector(a->width, [&](Index c, auto n) {
                        Vec d = load_some(dy + c, n) * load_some(a->weight + c, n);
                        if (gate) {
                            const Vec z = load_some(gate + c, n);
                            d *= z * sigmoid(z);
                        }
                        store_some(dx + c, rstd * (d - load_some(x + c, n) * rstd * mean), n);
                    });
                }
            });
        });
    });
}

// x [rows, 2 width]: gate and up side by side; y [rows, width]
struct SwiGLU {
    Index rows, width, threads, bf16;
    const char* x;
    char* y;
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
                each_vector(a->width, [&](Index c, auto n) {
                    const Vec z = load_some(x + c, n);
                    store_some(y + c, z * sigmoid(z) * load_some(x_up + c, n), n);
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
                T *dx = reinterpret_cast<T*>(a->dx) + r * 2 * a->width, *dx_up = dx + a->width;
                each_vector(a->width, [&](Index c, auto n) {
                    const Vec z = load_some(x + c, n), s = sigmoid(z), silu = z * s;
                    const Vec up = load_some(x_up + c, n), d = load_some(dy + c, n);
                    store_some(dx + c, d * up * s * (1.0f + z * (1.0f - s)), n);
                    store_some(dx_up + c, d * silu, n);
                });
            }
        });
    });
}
}
