// The vector vocabulary in plain C: the specification that every other file here agrees with bit for bit.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/half.h"

namespace {

// Vectors that the registers hold at once.
constexpr int kVectorRegisters = 8;
// Rows of a product whose sums fit into the registers.
constexpr int kRows = 4;
constexpr int kRowsOfTwo = 0;
constexpr int64_t kFarOfOne = 0;

struct F32x16 {
    float lane[16];
};
struct I32x16 {
    int32_t lane[16];
};
struct U8x64 {
    uint8_t byte[64];
};

template <class Op>
inline F32x16 each(Op op) {
    F32x16 r;
    for (int i = 0; i < 16; i++) r.lane[i] = op(i);
    return r;
}

inline F32x16 set1(float v) {
    return each([&](int) { return v; });
}
inline F32x16 load(const float* p) {
    return each([&](int i) { return p[i]; });
}
inline void store(float* p, F32x16 a) { std::memcpy(p, a.lane, sizeof a.lane); }

inline F32x16 operator+(F32x16 a, F32x16 b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
    return each([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
    return each([&](int i) { return a.lane[i] / b.lane[i]; });
}
// a * b + c, rounded once.
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
    return each([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
}
inline F32x16 max(F32x16 a, F32x16 b) {
    return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline F32x16 min(F32x16 a, F32x16 b) {
    return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
// Lanes of `a` where `x` is below `limit` become zero.
inline F32x16 zero_where_below(F32x16 a, F32x16 x, F32x16 limit) {
    return each([&](int i) { return x.lane[i] < limit.lane[i] ? 0.0f : a.lane[i]; });
}

inline float reduce_sum(F32x16 a) {
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; i++) a.lane[i] += a.lane[i + width];
    return a.lane[0];
}
inline float reduce_max(F32x16 a) {
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            a.lane[i] = a.lane[i] > a.lane[i + width] ? a.lane[i] : a.lane[i + width];
    return a.lane[0];
}

// Lane i gets lane i ^ n; n is 1, 2, 4 or 8.
template <int n>
inline F32x16 swap_lanes(F32x16 a) {
    return each([&](int i) { return a.lane[i ^ n]; });
}

// 2^n for whole n from -126 to 127.
inline F32x16 exp2_whole(F32x16 n) {
    return each([&](int i) {
        return puna::bits_to_f32(static_cast<uint32_t>(static_cast<int32_t>(n.lane[i]) + 127) << 23);
    });
}

inline F32x16 load_f16(const uint16_t* p) {
    return each([&](int i) { return puna::f16_to_f32(p[i]); });
}
inline void store_f16(uint16_t* p, F32x16 a) {
    for (int i = 0; i < 16; i++) p[i] = puna::f32_to_f16(a.lane[i]);
}
// The first (0) or the second (1) of each of 16 pairs of bfloat16.
template <int which>
inline F32x16 load_bf16_of_pairs(const uint16_t* p) {
    return each([&](int i) { return puna::bf16_to_f32(p[2 * i + which]); });
}
// That of one pair in all lanes.
template <int which>
inline F32x16 set1_bf16_of_pair(const uint16_t* p) {
    return set1(puna::bf16_to_f32(p[which]));
}

inline I32x16 i32_zero() { return I32x16{}; }
inline I32x16 i32_set1(int32_t v) {
    I32x16 r;
    for (int i = 0; i < 16; i++) r.lane[i] = v;
    return r;
}
inline I32x16 i32_load(const int32_t* p) {
    I32x16 r;
    std::memcpy(r.lane, p, sizeof r.lane);
    return r;
}
inline I32x16 operator-(I32x16 a, I32x16 b) {
    for (int i = 0; i < 16; i++) a.lane[i] -= b.lane[i];
    return a;
}
inline I32x16 operator*(I32x16 a, I32x16 b) {
    for (int i = 0; i < 16; i++) a.lane[i] *= b.lane[i];
    return a;
}
template <int n>
inline I32x16 shift_left(I32x16 a) {
    for (int i = 0; i < 16; i++) a.lane[i] *= 1 << n;
    return a;
}
inline F32x16 to_f32(I32x16 a) {
    return each([&](int i) { return static_cast<float>(a.lane[i]); });
}
// Lanes hold whole numbers from -128 to 127.
inline void store_i8(int8_t* p, F32x16 a) {
    for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(a.lane[i]);
}

inline F32x16 load_i8(const int8_t* p) {
    return each([&](int i) { return static_cast<float>(p[i]); });
}

inline U8x64 load_u8(const uint8_t* p) {
    U8x64 r;
    std::memcpy(r.byte, p, sizeof r.byte);
    return r;
}
inline void load_nibbles(const uint8_t* p, U8x64& low, U8x64& high) {
    for (int i = 0; i < 64; i++) {
        low.byte[i] = p[i] & 15;
        high.byte[i] = p[i] >> 4;
    }
}
constexpr int kParts = 1;
using Factor = int8_t;
template <int part>
inline U8x64 part_of(U8x64 w) {
    return w;
}
template <int part>
inline I32x16 dot4(I32x16 acc, U8x64 w, const int8_t* x, int v) {
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 4; c++) acc.lane[r] += int32_t{w.byte[4 * r + c]} * int32_t{x[4 * v + c]};
    return acc;
}
// The same for w up to 15 and at most eight runs, which a path may sum in fewer bits.
using NibbleSum = I32x16;
inline NibbleSum nibble_zero() { return i32_zero(); }
inline NibbleSum dot4_nibble(NibbleSum acc, U8x64 w, const int8_t* x) { return dot4<0>(acc, w, x, 0); }
inline I32x16 to_i32(NibbleSum acc) { return acc; }

}  // namespace
