// The vector vocabulary on AVX2, FMA and F16C: two 256-bit registers a vector.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

// Vectors that the registers hold at once.
constexpr int kVectorRegisters = 8;
// Rows of a product whose sums fit into the registers.
constexpr int kRows = 4;
// The same for two tiles at once; 0: one is enough, whose vectors take several registers.
constexpr int kRowsOfTwo = 0;
// How far ahead a product of one row asks for integer weights, in bytes; 0: it leaves that to the processor.
constexpr int64_t kFarOfOne = 1024;

struct F32x16 {
    __m256 a, b;
};
struct I32x16 {
    __m256i a, b;
};
struct U8x64 {
    __m256i a, b;
};

inline F32x16 set1(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
inline F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F32x16 x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
inline F32x16 operator+(F32x16 x, F32x16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F32x16 operator-(F32x16 x, F32x16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F32x16 operator*(F32x16 x, F32x16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F32x16 operator/(F32x16 x, F32x16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F32x16 fma(F32x16 x, F32x16 y, F32x16 z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline F32x16 max(F32x16 x, F32x16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F32x16 min(F32x16 x, F32x16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F32x16 zero_where_below(F32x16 v, F32x16 x, F32x16 limit) {
    return {_mm256_andnot_ps(_mm256_cmp_ps(x.a, limit.a, _CMP_LT_OQ), v.a),
            _mm256_andnot_ps(_mm256_cmp_ps(x.b, limit.b, _CMP_LT_OQ), v.b)};
}

inline float reduce_sum(F32x16 x) {
    const __m256 w8 = _mm256_add_ps(x.a, x.b);
    const __m128 w4 = _mm_add_ps(_mm256_castps256_ps128(w8), _mm256_extractf128_ps(w8, 1));
    const __m128 w2 = _mm_add_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_cvtss_f32(_mm_add_ss(w2, _mm_movehdup_ps(w2)));
}
inline float reduce_max(F32x16 x) {
    const __m256 w8 = _mm256_max_ps(x.a, x.b);
    const __m128 w4 = _mm_max_ps(_mm256_castps256_ps128(w8), _mm256_extractf128_ps(w8, 1));
    const __m128 w2 = _mm_max_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_cvtss_f32(_mm_max_ss(w2, _mm_movehdup_ps(w2)));
}

template <int n>
inline __m256 swap_lanes_half(__m256 x) {
    if constexpr (n == 4)
        return _mm256_permute2f128_ps(x, x, 1);
    else
        return _mm256_permute_ps(x, n == 2 ? 0x4e : 0xb1);
}
template <int n>
inline F32x16 swap_lanes(F32x16 x) {
    if constexpr (n == 8)
        return {x.b, x.a};
    else
        return {swap_lanes_half<n>(x.a), swap_lanes_half<n>(x.b)};
}

inline __m256 exp2_whole_half(__m256 n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
inline F32x16 exp2_whole(F32x16 n) { return {exp2_whole_half(n.a), exp2_whole_half(n.b)}; }

inline F32x16 load_f16(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline void store_f16(uint16_t* p, F32x16 x) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, kNearest));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, kNearest));
}
inline __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
template <int which>
inline __m256 of_pairs(__m256i pairs) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm256_castsi256_ps(which == 0 ? _mm256_slli_epi32(pairs, 16) : _mm256_and_si256(pairs, high));
}
template <int which>
inline F32x16 load_bf16_of_pairs(const uint16_t* p) {
    return {of_pairs<which>(load_256(p)), of_pairs<which>(load_256(p + 16))};
}
template <int which>
inline F32x16 set1_bf16_of_pair(const uint16_t* p) {
    int32_t bits;
    std::memcpy(&bits, p, sizeof bits);
    const __m256 x = of_pairs<which>(_mm256_set1_epi32(bits));
    return {x, x};
}

inline I32x16 i32_zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline I32x16 i32_set1(int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
inline I32x16 i32_load(const int32_t* p) { return {load_256(p), load_256(p + 8)}; }
inline I32x16 operator-(I32x16 x, I32x16 y) {
    return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)};
}
inline I32x16 operator*(I32x16 x, I32x16 y) {
    return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)};
}
template <int n>
inline I32x16 shift_left(I32x16 x) {
    return {_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)};
}
inline F32x16 to_f32(I32x16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline void store_i8(int8_t* p, F32x16 x) {
    const __m256i w16 = _mm256_packs_epi32(_mm256_cvttps_epi32(x.a), _mm256_cvttps_epi32(x.b));
    const __m256i ordered = _mm256_permute4x64_epi64(w16, 0xd8);
    const __m128i w8 = _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), w8);
}

inline __m256 load_i8_half(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline F32x16 load_i8(const int8_t* p) { return {load_i8_half(p), load_i8_half(p + 8)}; }

inline U8x64 load_u8(const uint8_t* p) { return {load_256(p), load_256(p + 32)}; }
inline void load_nibbles(const uint8_t* p, U8x64& low, U8x64& high) {
    const __m256i mask = _mm256_set1_epi8(15), a = load_256(p), b = load_256(p + 32);
    low = {_mm256_and_si256(a, mask), _mm256_and_si256(b, mask)};
    high = {_mm256_and_si256(_mm256_srli_epi16(a, 4), mask), _mm256_and_si256(_mm256_srli_epi16(b, 4), mask)};
}

inline __m256i four_bytes(const int8_t* x) {
    int32_t bits;
    std::memcpy(&bits, x, sizeof bits);
    return _mm256_set1_epi32(bits);
}
// maddubs would saturate at 16 bits: even and odd columns are multiplied apart as 16-bit numbers.
constexpr int kParts = 2;
using Factor = int16_t;
template <int part>
inline U8x64 part_of(U8x64 w) {
    const __m256i low = _mm256_set1_epi16(255);
    if constexpr (part == 0) return {_mm256_and_si256(w.a, low), _mm256_and_si256(w.b, low)};
    return {_mm256_srli_epi16(w.a, 8), _mm256_srli_epi16(w.b, 8)};
}
template <int part>
inline I32x16 dot4(I32x16 acc, U8x64 w, const int16_t* x, int v) {
    // Written out, as GCC keeps sums of four rows in memory otherwise, which costs them a quarter of their
    // speed.
    const auto* pair = reinterpret_cast<const int16_t(*)[2]>(x + 16 * part + 2 * v);
    __m256i two, products;
    asm("vpbroadcastd %[pair], %[two]\n\t"
        "vpmaddwd %[two], %[wa], %[products]\n\t"
        "vpaddd %[products], %[a], %[a]\n\t"
        "vpmaddwd %[two], %[wb], %[two]\n\t"
        "vpaddd %[two], %[b], %[b]"
        : [a] "+x"(acc.a), [b] "+x"(acc.b), [two] "=&x"(two), [products] "=&x"(products)
        : [pair] "m"(*pair), [wa] "x"(w.a), [wb] "x"(w.b));
    return acc;
}
// 16-bit sums of two products a run: eight runs are at most 8 x 2 x 15 x 128, which fits.
struct NibbleSum {
    __m256i a, b;
};
inline NibbleSum nibble_zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline NibbleSum dot4_nibble(NibbleSum acc, U8x64 w, const int8_t* x) {
    const __m256i bytes = four_bytes(x);
    return {_mm256_add_epi16(acc.a, _mm256_maddubs_epi16(w.a, bytes)),
            _mm256_add_epi16(acc.b, _mm256_maddubs_epi16(w.b, bytes))};
}
inline I32x16 to_i32(NibbleSum acc) {
    const __m256i ones = _mm256_set1_epi16(1);
    return {_mm256_madd_epi16(acc.a, ones), _mm256_madd_epi16(acc.b, ones)};
}

}  // namespace
