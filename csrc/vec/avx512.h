// The vector vocabulary on AVX-512 F, BW, DQ and VL; with VNNI where the file is compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

// Vectors that the registers hold at once.
constexpr int kVectorRegisters = 32;
// Rows of a product whose sums fit into the registers.
constexpr int kRows = 8;
// The same for two tiles at once. A load of an activation is then worth two products: Zen 4 loads one vector
// a cycle, and multiplies one.
constexpr int kRowsOfTwo = 4;
constexpr int64_t kFarOfOne = 0;

struct F32x16 {
    __m512 v;
};
struct I32x16 {
    __m512i v;
};
struct U8x64 {
    __m512i v;
};

inline F32x16 set1(float v) { return {_mm512_set1_ps(v)}; }
inline F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F32x16 x) { _mm512_storeu_ps(p, x.v); }
inline F32x16 operator+(F32x16 x, F32x16 y) { return {_mm512_add_ps(x.v, y.v)}; }
inline F32x16 operator-(F32x16 x, F32x16 y) { return {_mm512_sub_ps(x.v, y.v)}; }
inline F32x16 operator*(F32x16 x, F32x16 y) { return {_mm512_mul_ps(x.v, y.v)}; }
inline F32x16 operator/(F32x16 x, F32x16 y) { return {_mm512_div_ps(x.v, y.v)}; }
inline F32x16 fma(F32x16 x, F32x16 y, F32x16 z) { return {_mm512_fmadd_ps(x.v, y.v, z.v)}; }
inline F32x16 max(F32x16 x, F32x16 y) { return {_mm512_max_ps(x.v, y.v)}; }
inline F32x16 min(F32x16 x, F32x16 y) { return {_mm512_min_ps(x.v, y.v)}; }
inline F32x16 zero_where_below(F32x16 v, F32x16 x, F32x16 limit) {
    const __mmask16 below = _mm512_cmp_ps_mask(x.v, limit.v, _CMP_LT_OQ);
    return {_mm512_mask_mov_ps(v.v, below, _mm512_setzero_ps())};
}

inline float reduce_sum(F32x16 x) {
    const __m256 w8 = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    const __m128 w4 = _mm_add_ps(_mm256_castps256_ps128(w8), _mm256_extractf128_ps(w8, 1));
    const __m128 w2 = _mm_add_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_cvtss_f32(_mm_add_ss(w2, _mm_movehdup_ps(w2)));
}
inline float reduce_max(F32x16 x) {
    const __m256 w8 = _mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    const __m128 w4 = _mm_max_ps(_mm256_castps256_ps128(w8), _mm256_extractf128_ps(w8, 1));
    const __m128 w2 = _mm_max_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_cvtss_f32(_mm_max_ss(w2, _mm_movehdup_ps(w2)));
}

template <int n>
inline F32x16 swap_lanes(F32x16 x) {
    if constexpr (n >= 4)
        return {_mm512_shuffle_f32x4(x.v, x.v, n == 8 ? 0x4e : 0xb1)};
    else
        return {_mm512_permute_ps(x.v, n == 2 ? 0x4e : 0xb1)};
}

inline F32x16 exp2_whole(F32x16 n) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvttps_epi32(n.v), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}

inline F32x16 load_f16(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_f16(uint16_t* p, F32x16 x) {
    const __m256i half = _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
}
template <int which>
inline F32x16 of_pairs(__m512i pairs) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm512_castsi512_ps(which == 0 ? _mm512_slli_epi32(pairs, 16) : _mm512_and_si512(pairs, high))};
}
template <int which>
inline F32x16 load_bf16_of_pairs(const uint16_t* p) {
    return of_pairs<which>(_mm512_loadu_si512(p));
}
template <int which>
inline F32x16 set1_bf16_of_pair(const uint16_t* p) {
    int32_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return of_pairs<which>(_mm512_set1_epi32(bits));
}

inline I32x16 i32_zero() { return {_mm512_setzero_si512()}; }
inline I32x16 i32_set1(int32_t v) { return {_mm512_set1_epi32(v)}; }
inline I32x16 i32_load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline I32x16 operator-(I32x16 x, I32x16 y) { return {_mm512_sub_epi32(x.v, y.v)}; }
inline I32x16 operator*(I32x16 x, I32x16 y) { return {_mm512_mullo_epi32(x.v, y.v)}; }
template <int n>
inline I32x16 shift_left(I32x16 x) {
    return {_mm512_slli_epi32(x.v, n)};
}
inline F32x16 to_f32(I32x16 x) { return {_mm512_cvtepi32_ps(x.v)}; }
inline void store_i8(int8_t* p, F32x16 x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(x.v)));
}

inline F32x16 load_i8(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}

inline U8x64 load_u8(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline void load_nibbles(const uint8_t* p, U8x64& low, U8x64& high) {
    const __m512i mask = _mm512_set1_epi8(15), bytes = _mm512_loadu_si512(p);
    low = {_mm512_and_si512(bytes, mask)};
    high = {_mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask)};
}

inline __m512i four_bytes(const int8_t* x) {
    int32_t bits;
    std::memcpy(&bits, x, sizeof bits);
    return _mm512_set1_epi32(bits);
}
#ifdef __AVX512VNNI__
constexpr int kParts = 1;
using Factor = int8_t;
template <int part>
inline U8x64 part_of(U8x64 w) {
    return w;
}
template <int part>
inline I32x16 dot4(I32x16 acc, U8x64 w, const int8_t* x, int v) {
    return {_mm512_dpbusd_epi32(acc.v, w.v, four_bytes(x + 4 * v))};
}
using NibbleSum = I32x16;
inline NibbleSum nibble_zero() { return i32_zero(); }
inline NibbleSum dot4_nibble(NibbleSum acc, U8x64 w, const int8_t* x) { return dot4<0>(acc, w, x, 0); }
inline I32x16 to_i32(NibbleSum acc) { return acc; }
#else
// maddubs would saturate at 16 bits: even and odd columns are multiplied apart as 16-bit numbers.
constexpr int kParts = 2;
using Factor = int16_t;
template <int part>
inline U8x64 part_of(U8x64 w) {
    return {part == 0 ? _mm512_and_si512(w.v, _mm512_set1_epi16(255)) : _mm512_srli_epi16(w.v, 8)};
}
template <int part>
inline I32x16 dot4(I32x16 acc, U8x64 w, const int16_t* x, int v) {
    int32_t bits;
    std::memcpy(&bits, x + 16 * part + 2 * v, sizeof bits);
    return {_mm512_add_epi32(acc.v, _mm512_madd_epi16(w.v, _mm512_set1_epi32(bits)))};
}
// 16-bit sums of two products a run: eight runs are at most 8 x 2 x 15 x 128, which fits.
struct NibbleSum {
    __m512i v;
};
inline NibbleSum nibble_zero() { return {_mm512_setzero_si512()}; }
inline NibbleSum dot4_nibble(NibbleSum acc, U8x64 w, const int8_t* x) {
    return {_mm512_add_epi16(acc.v, _mm512_maddubs_epi16(w.v, four_bytes(x)))};
}
inline I32x16 to_i32(NibbleSum acc) { return {_mm512_madd_epi16(acc.v, _mm512_set1_epi16(1))}; }
#endif

}  // namespace
