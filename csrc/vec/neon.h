// The vector vocabulary on NEON with the dot product instructions: four 128-bit registers a vector.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace {

// Vectors that the registers hold at once.
constexpr int kVectorRegisters = 8;
// Rows of a product whose sums fit into the registers.
constexpr int kRows = 4;
// The same for two tiles at once; 0: one is enough, whose vectors take several registers.
constexpr int kRowsOfTwo = 0;
constexpr int64_t kFarOfOne = 0;

struct F32x16 {
    float32x4_t v[4];
};
struct I32x16 {
    int32x4_t v[4];
};
struct U8x64 {
    uint8x16_t v[4];
};

template <class V, class Op>
inline V quarters(Op op) {
    return {{op(0), op(1), op(2), op(3)}};  // GCC keeps in memory what a loop fills
}

inline F32x16 set1(float x) {
    return quarters<F32x16>([&](int) { return vdupq_n_f32(x); });
}
inline F32x16 load(const float* p) {
    return quarters<F32x16>([&](int i) { return vld1q_f32(p + 4 * i); });
}
inline void store(float* p, F32x16 a) {
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]);
}
inline F32x16 operator+(F32x16 a, F32x16 b) {
    return quarters<F32x16>([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
    return quarters<F32x16>([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
    return quarters<F32x16>([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
    return quarters<F32x16>([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
    return quarters<F32x16>([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
// Not vmaxq: with a NaN it gives the NaN, whichever side it is on.
inline F32x16 max(F32x16 a, F32x16 b) {
    return quarters<F32x16>([&](int i) { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline F32x16 min(F32x16 a, F32x16 b) {
    return quarters<F32x16>([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline F32x16 zero_where_below(F32x16 a, F32x16 x, F32x16 limit) {
    return quarters<F32x16>(
        [&](int i) { return vbslq_f32(vcltq_f32(x.v[i], limit.v[i]), vdupq_n_f32(0.0f), a.v[i]); });
}

inline float reduce_sum(F32x16 a) {
    const float32x4_t w4 = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
    const float32x2_t w2 = vadd_f32(vget_low_f32(w4), vget_high_f32(w4));
    return vget_lane_f32(w2, 0) + vget_lane_f32(w2, 1);
}
inline float reduce_max(F32x16 a) {
    float lane[16];
    store(lane, a);
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
    return lane[0];
}

template <int n>
inline F32x16 swap_lanes(F32x16 a) {
    return quarters<F32x16>([&](int i) {
        if constexpr (n >= 4)
            return a.v[i ^ (n / 4)];
        else
            return n == 2 ? vextq_f32(a.v[i], a.v[i], 2) : vrev64q_f32(a.v[i]);
    });
}

inline F32x16 exp2_whole(F32x16 n) {
    return quarters<F32x16>([&](int i) {
        const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n.v[i]), vdupq_n_s32(127));
        return vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23));
    });
}

inline F32x16 load_f16(const uint16_t* p) {
    return quarters<F32x16>([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}
inline void store_f16(uint16_t* p, F32x16 a) {
    for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}
template <int which>
inline float32x4_t of_pairs(uint32x4_t pairs) {
    return vreinterpretq_f32_u32(which == 0 ? vshlq_n_u32(pairs, 16)
                                            : vandq_u32(pairs, vdupq_n_u32(0xffff0000u)));
}
template <int which>
inline F32x16 load_bf16_of_pairs(const uint16_t* p) {
    return quarters<F32x16>(
        [&](int i) { return of_pairs<which>(vreinterpretq_u32_u16(vld1q_u16(p + 8 * i))); });
}
template <int which>
inline F32x16 set1_bf16_of_pair(const uint16_t* p) {
    uint32_t bits;
    std::memcpy(&bits, p, sizeof bits);
    const float32x4_t x = of_pairs<which>(vdupq_n_u32(bits));
    return quarters<F32x16>([&](int) { return x; });
}

inline I32x16 i32_set1(int32_t x) {
    return quarters<I32x16>([&](int) { return vdupq_n_s32(x); });
}
inline I32x16 i32_zero() { return i32_set1(0); }
inline I32x16 i32_load(const int32_t* p) {
    return quarters<I32x16>([&](int i) { return vld1q_s32(p + 4 * i); });
}
inline I32x16 operator-(I32x16 a, I32x16 b) {
    return quarters<I32x16>([&](int i) { return vsubq_s32(a.v[i], b.v[i]); });
}
inline I32x16 operator*(I32x16 a, I32x16 b) {
    return quarters<I32x16>([&](int i) { return vmulq_s32(a.v[i], b.v[i]); });
}
template <int n>
inline I32x16 shift_left(I32x16 a) {
    return quarters<I32x16>([&](int i) { return vshlq_n_s32(a.v[i], n); });
}
inline F32x16 to_f32(I32x16 a) {
    return quarters<F32x16>([&](int i) { return vcvtq_f32_s32(a.v[i]); });
}
inline void store_i8(int8_t* p, F32x16 a) {
    int16x4_t w16[4];
    for (int i = 0; i < 4; i++) w16[i] = vmovn_s32(vcvtq_s32_f32(a.v[i]));
    vst1_s8(p, vmovn_s16(vcombine_s16(w16[0], w16[1])));
    vst1_s8(p + 8, vmovn_s16(vcombine_s16(w16[2], w16[3])));
}

inline F32x16 load_i8(const int8_t* p) {
    const int8x16_t bytes = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
             vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}

inline U8x64 load_u8(const uint8_t* p) {
    return quarters<U8x64>([&](int i) { return vld1q_u8(p + 16 * i); });
}
inline void load_nibbles(const uint8_t* p, U8x64& low, U8x64& high) {
    for (int i = 0; i < 4; i++) {
        const uint8x16_t bytes = vld1q_u8(p + 16 * i);
        low.v[i] = vandq_u8(bytes, vdupq_n_u8(15));
        high.v[i] = vshrq_n_u8(bytes, 4);
    }
}

inline int8x16_t four_bytes(const int8_t* x) {
    int32_t bits;
    std::memcpy(&bits, x, sizeof bits);
    return vreinterpretq_s8_s32(vdupq_n_s32(bits));
}
using NibbleSum = I32x16;
inline NibbleSum nibble_zero() { return i32_zero(); }
inline I32x16 to_i32(NibbleSum acc) { return acc; }
// Up to 15 a byte is the same signed and unsigned.
inline NibbleSum dot4_nibble(NibbleSum acc, U8x64 w, const int8_t* x) {
    const int8x16_t bytes = four_bytes(x);
    return quarters<I32x16>([&](int i) { return vdotq_s32(acc.v[i], vreinterpretq_s8_u8(w.v[i]), bytes); });
}
constexpr int kParts = 1;
using Factor = int8_t;
template <int part>
inline U8x64 part_of(U8x64 w) {
    return w;
}
#ifdef __ARM_FEATURE_MATMUL_INT8
template <int part>
inline I32x16 dot4(I32x16 acc, U8x64 w, const int8_t* x, int v) {
    const int8x16_t bytes = four_bytes(x + 4 * v);
    return quarters<I32x16>([&](int i) { return vusdotq_s32(acc.v[i], w.v[i], bytes); });
}
#else
// The instruction is signed: w - 128 is, and 128 * sum(x) = 2 * dot(64, x) is added back.
template <int part>
inline I32x16 dot4(I32x16 acc, U8x64 w, const int8_t* x, int v) {
    const int8x16_t bytes = four_bytes(x + 4 * v), half = vdupq_n_s8(64);
    const int32x4_t correction = vdotq_s32(vdotq_s32(vdupq_n_s32(0), bytes, half), bytes, half);
    return quarters<I32x16>([&](int i) {
        const int8x16_t centred = vreinterpretq_s8_u8(veorq_u8(w.v[i], vdupq_n_u8(128)));
        return vdotq_s32(vaddq_s32(acc.v[i], correction), centred, bytes);
    });
}
#endif

}  // namespace
