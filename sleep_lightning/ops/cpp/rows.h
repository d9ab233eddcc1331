// Reading and writing strided tensors with rows of any length, in fp32 or bf16.
#pragma once
#include <algorithm>

#include "tile.h"

namespace {

#define NOINLINE __attribute__((noinline))

constexpr Index LINES_AHEAD = 24;  // prefetched at every step

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

// Writes the part of a tile that is inside the tensor, at row t and column `col`.
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

// Prefetches the cache lines that the next chunk or head reads and writes, some at every tile of this one: the tensors
// are not in L2, and the hardware does not predict the rows of a head, which are far apart.
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
            // Into L2, with a read hint also for what is written: a write hint would fill L1.
            for (Index at = 0; at < x.width * size; at += 64, lines--) __builtin_prefetch(p + at, 0, 2);
            if (++row == x.count) part++, row = 0;
        }
    }
};

}  // namespace
