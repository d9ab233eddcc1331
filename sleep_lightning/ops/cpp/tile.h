// Small matrices in registers and cache: transposition, and products of a tile of rows.
#pragma once
#include <type_traits>
#include <utility>

#include "vector.h"

namespace {

// ---- Transposition in registers: log2(LANES) perfect shuffles of LANES rows.

// The lower (HALF = 0) or upper halves of a and b, lane by lane in turn.
template <int HALF, int... I>
INLINE Vec interleave(Vec a, Vec b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (I / 2 + HALF * LANES / 2 + I % 2 * LANES)...);
#else
    return __builtin_shuffle(a, b, IntVec{(I / 2 + HALF * LANES / 2 + I % 2 * LANES)...});
#endif
}

INLINE void transpose_block(Vec (&rows)[LANES]) {
    constexpr auto lanes = std::make_integer_sequence<int, LANES>();
    UNROLL for (int stage = 1; stage < LANES; stage *= 2) {
        Vec next[LANES];
        UNROLL for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = interleave<0>(rows[i], rows[i + LANES / 2], lanes);
            next[2 * i + 1] = interleave<1>(rows[i], rows[i + LANES / 2], lanes);
        }
        UNROLL for (int i = 0; i < LANES; i++) rows[i] = next[i];
    }
}

// ---- Transposition in memory, by blocks of at most 8 x 8: 256-bit shuffles cost half of 512-bit ones.

constexpr int SIDE = LANES < 8 ? LANES : 8;
typedef float Side __attribute__((vector_size(SIDE * 4)));
typedef std::int32_t SideInt __attribute__((vector_size(SIDE * 4)));

// The source, among the lanes of a and then those of b, of lane i of mix<W, HALF>(a, b).
constexpr int mix_lane(int W, int HALF, int i) {
    const int block = W < 2 ? 4 : 2 * W, in_block = i % block;
    return i - in_block + HALF * block / 2 + in_block / (2 * W) * W + i % W + i / W % 2 * SIDE;
}

template <int W, int HALF, int... I>
INLINE Side mix(Side a, Side b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, mix_lane(W, HALF, I)...);
#else
    return __builtin_shuffle(a, b, SideInt{mix_lane(W, HALF, I)...});
#endif
}

// Of every block of max(4, 2 W) lanes, the lower (HALF = 0) or upper halves of a and b, W lanes in turn.
template <int W, int HALF>
INLINE Side mix(Side a, Side b) {
    return mix<W, HALF>(a, b, std::make_integer_sequence<int, SIDE>());
}

INLINE void transpose_side(Side (&x)[SIDE]) {
    UNROLL for (int i = 0; i < SIDE; i += 4) {
        const Side a = mix<1, 0>(x[i], x[i + 1]), b = mix<1, 0>(x[i + 2], x[i + 3]);
        const Side c = mix<1, 1>(x[i], x[i + 1]), d = mix<1, 1>(x[i + 2], x[i + 3]);
        x[i] = mix<2, 0>(a, b), x[i + 1] = mix<2, 1>(a, b);
        x[i + 2] = mix<2, 0>(c, d), x[i + 3] = mix<2, 1>(c, d);
    }
    UNROLL for (int i = 0; i < SIDE - 4; i++) {
        const Side a = x[i], b = x[i + 4];
        x[i] = mix<4, 0>(a, b), x[i + 4] = mix<4, 1>(a, b);
    }
}

// out[LANES, LANES] = in^T, its columns times `scale`
INLINE void transpose(float* out, Index ld_out, const float* in, Index ld_in, const float* scale = nullptr) {
    UNROLL for (int t = 0; t < LANES; t += SIDE)
        UNROLL for (int i = 0; i < LANES; i += SIDE) {
            Side x[SIDE], factor = Side{} + 1.0f;
            UNROLL for (int r = 0; r < SIDE; r++) std::memcpy(&x[r], in + (t + r) * ld_in + i, sizeof x[r]);
            transpose_side(x);
            if (scale) std::memcpy(&factor, scale + t, sizeof factor);
            UNROLL for (int r = 0; r < SIDE; r++) {
                if (scale) x[r] *= factor;
                std::memcpy(out + (i + r) * ld_out + t, &x[r], sizeof x[r]);
            }
        }
}

// sums[t] = the sum of the lanes of rows[t], for n rows, n a multiple of LANES
void sum_lanes(float* sums, const float* rows, Index n) {
    for (Index t = 0; t < n; t += LANES) {
        Vec block[LANES], sum = {};
        UNROLL for (int i = 0; i < LANES; i++) block[i] = load(rows + (t + i) * LANES);
        transpose_block(block);
        UNROLL for (int i = 0; i < LANES; i++) sum += block[i];
        store(sums + t, sum);
    }
}

// ---- The two micro-kernels: a tile of ROWS x (N vectors) in registers.

template <int N>
struct Tile {
    Vec at[ROWS][N];
};

// tile[r] += sum_i a[r, i] * b[i], i < n
template <int N>
INLINE void add_product(Tile<N>& tile, const float* a, Index ld_a, const float* b, Index ld_b, Index n) {
    for (Index i = 0; i < n; i++) {
        Vec row[N];
        UNROLL for (int c = 0; c < N; c++) row[c] = load(b + i * ld_b + c * LANES);
        UNROLL for (int r = 0; r < ROWS; r++) {
            const float x = a[r * ld_a + i];
            UNROLL for (int c = 0; c < N; c++) tile.at[r][c] += row[c] * x;
        }
    }
}

// tile[r] += sum_i a[r, i] * b[i], i <= t + r, with the rows from t on of a triangular matrix. What lies above its diagonal
// is not multiplied: zero times the NaN of a later token is NaN.
template <int N>
INLINE void add_lower_product(Tile<N>& tile, const float* a, Index ld_a, const float* b, Index ld_b, Index t) {
    add_product(tile, a, ld_a, b, ld_b, t);
    UNROLL for (int i = 0; i < ROWS; i++) {
        Vec row[N];
        UNROLL for (int c = 0; c < N; c++) row[c] = load(b + (t + i) * ld_b + c * LANES);
        UNROLL for (int r = i; r < ROWS; r++) {
            const float x = a[r * ld_a + t + i];
            UNROLL for (int c = 0; c < N; c++) tile.at[r][c] += row[c] * x;
        }
    }
}

// tile[r] += sum_i a[i, r] * b[i], i < n
template <int N>
INLINE void add_transposed(Tile<N>& tile, const float* a, Index ld_a, const float* b, Index ld_b, Index n) {
    for (Index i = 0; i < n; i++) {
        Vec row[N];
        UNROLL for (int c = 0; c < N; c++) row[c] = load(b + i * ld_b + c * LANES);
        UNROLL for (int r = 0; r < ROWS; r++) {
            const float x = a[i * ld_a + r];
            UNROLL for (int c = 0; c < N; c++) tile.at[r][c] += row[c] * x;
        }
    }
}

// Calls f(vectors, first column) for every panel of n columns, n a multiple of LANES.
template <class F>
INLINE void each_panel(Index n, F f) {
    Index x = 0;
    for (; x + PANEL * LANES <= n; x += PANEL * LANES) f(std::integral_constant<int, PANEL>(), x);
    for (; x < n; x += LANES) f(std::integral_constant<int, 1>(), x);
}

INLINE Index panel_width(Index left) { return std::min<Index>(left, PANEL * LANES); }

template <int N>
INLINE void store_tile(float* out, const Tile<N>& tile) {
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int c = 0; c < N; c++) store(out + (r * N + c) * LANES, tile.at[r][c]);
}

template <int N>
INLINE void load_scaled(Tile<N>& tile, const float* in, float scale, Index ld = N * LANES) {
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int c = 0; c < N; c++) tile.at[r][c] = load(in + r * ld + c * LANES) * scale;
}

float dot(const float* x, const float* y, Index n) {  // n a multiple of 2 * LANES
    Vec even = {}, odd = {};
    for (Index i = 0; i < n; i += 2 * LANES) {
        even += load(x + i) * load(y + i);
        odd += load(x + i + LANES) * load(y + i + LANES);
    }
    even += odd;
    float sum = 0.0f;
    for (int i = 0; i < LANES; i++) sum += even[i];
    return sum;
}

// sums[r] += tile[r] * x[r], lane by lane
template <int N>
INLINE void add_dots(float* sums_CL, const Tile<N>& tile, const float* x, Index ld) {
    UNROLL for (int r = 0; r < ROWS; r++) {
        Vec sum = load(sums_CL + r * LANES);
        UNROLL for (int c = 0; c < N; c++) sum += tile.at[r][c] * load(x + r * ld + c * LANES);
        store(sums_CL + r * LANES, sum);
    }
}

}  // namespace
