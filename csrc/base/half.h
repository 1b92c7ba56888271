// 16-bit floats in portable code: the definition that the vector paths' conversions agree with.
// Everything is `static` on purpose: files compiled for one instruction set include this header, and an
// inline function with external linkage could leak that set's code into the whole program.
#pragma once

#include <cstdint>
#include <cstring>

namespace puna {

[[maybe_unused]] static float bits_to_f32(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

[[maybe_unused]] static uint32_t f32_to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

[[maybe_unused]] static float bf16_to_f32(uint16_t half) { return bits_to_f32(uint32_t{half} << 16); }

// Round to nearest even; NaN stays NaN.
[[maybe_unused]] static uint16_t f32_to_bf16(float value) {
    uint32_t bits = f32_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40);
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

[[maybe_unused]] static float f16_to_f32(uint16_t half) {
    const uint32_t sign = uint32_t{half & 0x8000u} << 16;
    const uint32_t magnitude = half & 0x7fffu;
    if (magnitude >= 0x7c00u) return bits_to_f32(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude >= 0x0400u) return bits_to_f32(sign | ((magnitude << 13) + 0x38000000u));
    // Subnormal: magnitude x 2^-24, exact in float.
    const float value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;
    return bits_to_f32(sign | f32_to_bits(value));
}

// Round to nearest even, overflow to infinity, as the F16C instruction does.
[[maybe_unused]] static uint16_t f32_to_f16(float value) {
    const uint32_t bits = f32_to_bits(value);
    const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and up
    if (magnitude < 0x38800000u) {
        // Subnormal half: adding 0.5 (ulp 2^-24) makes the addition round to the half's own grid.
        const float shifted = bits_to_f32(magnitude) + 0.5f;
        return static_cast<uint16_t>(sign | (f32_to_bits(shifted) - 0x3f000000u));
    }
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace puna
