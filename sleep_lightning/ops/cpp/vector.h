// A vector of floats: arithmetic, loads and stores of float and bf16 memory.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

using Index = std::int64_t;

namespace {

// ROWS x PANEL accumulators, PANEL vectors and one broadcast fit the registers; ROWS divides the 8 of gated_delta_rule/cpp.py.
#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 8;
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 4;
#elif defined(__aarch64__)
constexpr int LANES = 4, ROWS = 8;
#else
constexpr int LANES = 4, ROWS = 4;
#endif
constexpr int PANEL = 2;
constexpr int TOKENS = LANES > ROWS ? LANES : ROWS;  // rows are padded to a multiple of this

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef std::int32_t IntVec __attribute__((vector_size(LANES * 4)));
typedef std::uint32_t BitsVec __attribute__((vector_size(LANES * 4)));
typedef std::uint16_t ShortVec __attribute__((vector_size(LANES * 2)));

// The same bits as another type.
template <class To, class From>
INLINE To bits_as(const From& x) {
    static_assert(sizeof(To) == sizeof(From));
    To out;
    std::memcpy(&out, &x, sizeof out);
    return out;
}

INLINE Vec load(const float* p) {
    Vec x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

INLINE void store(float* p, Vec x) { std::memcpy(p, &x, sizeof x); }

INLINE Index round_up(Index n, Index to) { return (n + to - 1) / to * to; }

// exp for x <= 0 to 1 ulp; below the smallest normal number it is 0. NaN stays NaN.
INLINE Vec exp_negative(Vec x) {
    const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    const Vec lowest = Vec{} - 87.0f;
    Vec clamped = x < lowest ? lowest : x;
    Vec shifted = clamped * 1.44269504f + shift;
    Vec n = shifted - shift;
    Vec r = clamped - n * 0.693359375f + n * 2.12194440e-4f;
    Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Vec power = bits_as<Vec>((bits_as<IntVec>(shifted) - 0x4B400000 + 127) << 23);
    return x < lowest ? Vec{} : p * power;
}

struct Bf16 {
    std::uint16_t bits;
    explicit Bf16(float x) {  // to nearest, ties to even
        const std::uint32_t wide = bits_as<std::uint32_t>(x);
        bits = std::uint16_t(x != x ? 0x7FC0 : (wide + 0x7FFF + ((wide >> 16) & 1)) >> 16);
    }
    explicit operator float() const { return bits_as<float>(std::uint32_t(bits) << 16); }
};

INLINE Vec load(const Bf16* p) {
    ShortVec bits;
    std::memcpy(&bits, p, sizeof bits);
    return bits_as<Vec>(__builtin_convertvector(bits, BitsVec) << 16);
}

INLINE void store(Bf16* p, Vec x) {
#if defined(__AVX512BF16__)
    const __m256bh narrow = _mm512_cvtneps_pbh(bits_as<__m512>(x));  // a subnormal becomes zero
    std::memcpy(&p->bits, &narrow, sizeof narrow);
#else
    const BitsVec wide = bits_as<BitsVec>(x), rounded = (wide + 0x7FFF + ((wide >> 16) & 1)) >> 16;
    const ShortVec bits = __builtin_convertvector(x != x ? BitsVec{} + 0x7FC0 : rounded, ShortVec);
    std::memcpy(&p->bits, &bits, sizeof bits);
#endif
}

// The first n of a vector's lanes, the rest zero.
template <class T>
INLINE Vec load_some(const T* p, Index n) {
    if (n >= LANES) return load(p);
    float lanes[LANES] = {};
    for (Index i = 0; i < n; i++) lanes[i] = float(p[i]);
    return load(lanes);
}

template <class T>
INLINE void store_some(T* p, Vec x, Index n) {
    if (n >= LANES) return store(p, x);
    for (Index i = 0; i < n; i++) p[i] = T(x[i]);
}

// Calls f(column, lanes inside) for every vector of n columns; a whole vector's lanes are a compile-time constant.
template <class F>
INLINE void each_vector(Index n, F f) {
    Index x = 0;
    for (; x + LANES <= n; x += LANES) f(x, std::integral_constant<Index, LANES>());
    if (x < n) f(x, n - x);
}

template <int N>
struct Lanes {
    typedef float Type __attribute__((vector_size(N * 4)));
};

// Reduces all lanes by f, halving each time: one lane after the other would take four times as long.
template <int N, class F>
INLINE float fold(typename Lanes<N>::Type x, F f) {
    struct {
        typename Lanes<N / 2>::Type low, high;
    } halves;
    static_assert(sizeof halves == sizeof x);
    std::memcpy(&halves, &x, sizeof x);
    if constexpr (N == 4) {
        const auto y = f(halves.low, halves.high);
        return f(y[0], y[1]);
    } else {
        return fold<N / 2>(f(halves.low, halves.high), f);
    }
}

INLINE float sum_of(Vec x) {
    return fold<LANES>(x, [](auto a, auto b) { return a + b; });
}

INLINE float largest_of(Vec x) {
    return fold<LANES>(x, [](auto a, auto b) { return a > b ? a : b; });
}

INLINE Vec sigmoid(Vec x) {
    const Vec e = exp_negative(x < 0.0f ? x : -x), r = 1.0f / (1.0f + e);
    return x < 0.0f ? e * r : r;
}

// f(T()) with T the element type.
template <class F>
INLINE void as_type(bool bf16, F f) {
    bf16 ? f(Bf16(0.0f)) : f(0.0f);
}

}  // namespace
