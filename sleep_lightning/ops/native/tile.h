// Small matrices on chip: transposition, and products of a tile of rows held in registers.
#pragma once
#include <type_traits>
#include <utility>

#include "vector.h"

namespace {

// ---- Transposition: log2(LANES) perfect shuffles of LANES rows.

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

// out[LANES, LANES] = in^T, its columns times `scale`
INLINE void transpose(float* out, Index ld_out, const float* in, Index ld_in, Vec scale) {
    Vec rows[LANES];
    UNROLL for (int i = 0; i < LANES; i++) rows[i] = load(in + i * ld_in);
    transpose_block(rows);
    UNROLL for (int i = 0; i < LANES; i++) store(out + i * ld_out, rows[i] * scale);
}

INLINE void transpose(float* out, Index ld_out, const float* in, Index ld_in) {
    transpose(out, ld_out, in, ld_in, Vec{} + 1.0f);
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
