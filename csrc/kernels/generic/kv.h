// A block of the key-value cache: how positions are written to it and read from it. kernels/table.h says how
// it lies in memory.
#pragma once

namespace {

using puna::CacheType;
using puna::KvLayout;

template <CacheType type>
constexpr int64_t kElementBytes = type == CacheType::f32   ? 4
                                  : type == CacheType::f16 ? 2
                                                           : 1;

template <CacheType type>
inline F32x16 load_kv(const uint8_t* p) {
    if constexpr (type == CacheType::f32) return load(reinterpret_cast<const float*>(p));
    if constexpr (type == CacheType::f16) return load_f16(reinterpret_cast<const uint16_t*>(p));
    if constexpr (type == CacheType::int8) return load_i8(reinterpret_cast<const int8_t*>(p));
}

// Scales of 16 positions: of the keys' group g, and of the values.
inline F32x16 key_scales(const KvLayout& kv, const uint8_t* block, int64_t g) {
    return load(reinterpret_cast<const float*>(block + kv.key_scale_offset) + g * puna::kBlockTokens);
}
inline F32x16 value_scales(const KvLayout& kv, const uint8_t* block) {
    return load(reinterpret_cast<const float*>(block + kv.value_scale_offset));
}

// Of the scales of a block's keys and values together.
inline int64_t scale_bytes(const KvLayout& kv) {
    return kv.value_offset - kv.key_scale_offset + kv.block_bytes - kv.value_scale_offset;
}

// x[n] to the nearest of 255 steps around zero; returns the step. Whole vectors of q are written. Numbers
// that are not finite make the step NaN, so that they show.
inline float quantize_symmetric(const float* x, int64_t n, int8_t* q) {
    F32x16 high = set1(0.0f), poison = set1(0.0f);
    for (int64_t i = 0; i < n; i += 16) {
        const F32x16 v = n - i < 16 ? load_some(x + i, n - i, 0.0f) : load(x + i);
        high = max(max(v, set1(0.0f) - v), high);
        poison = fma(v, set1(0.0f), poison);
    }
    const float largest = reduce_max(high);
    const bool is_zero = largest < 1e-30f;  // where 127 / largest would leave the range of a float
    const F32x16 inverse = set1(is_zero ? 0.0f : 127.0f / largest), limit = set1(127.0f);
    for (int64_t i = 0; i < n; i += 16) {
        const F32x16 v = n - i < 16 ? load_some(x + i, n - i, 0.0f) : load(x + i);
        // The clamps put the value first: a NaN becomes a bound, and the float-to-integer step is defined.
        store_i8(q + i, round_even(min(max(v * inverse, set1(-127.0f)), limit)));
    }
    return (is_zero ? 0.0f : largest / 127.0f) + reduce_sum(poison);
}

void store_int8(const KvLayout& kv, uint8_t* block, int64_t position, const float* key, const float* value) {
    auto* const scales = reinterpret_cast<float*>(block + kv.key_scale_offset) + position;
    for (int64_t i = 0; i < kv.head_dim; i += puna::kKeyGroup) {
        const int64_t n = kv.head_dim - i < puna::kKeyGroup ? kv.head_dim - i : puna::kKeyGroup;
        int8_t q[puna::kKeyGroup];
        scales[i / puna::kKeyGroup * puna::kBlockTokens] = quantize_symmetric(key + i, n, q);
        for (int64_t d = 0; d < n; d++)
            block[(i + d) * puna::kBlockTokens + position] = static_cast<uint8_t>(q[d]);
    }
    uint8_t* const values = block + kv.value_offset + position * kv.padded_head_dim;
    reinterpret_cast<float*>(block + kv.value_scale_offset)[position] =
        quantize_symmetric(value, kv.head_dim, reinterpret_cast<int8_t*>(values));
}

// Beyond the range of float16 a value is held at its end, NaN stays NaN.
template <CacheType type>
inline void store_16(uint8_t* p, F32x16 v) {
    if constexpr (type == CacheType::f16)
        store_f16(reinterpret_cast<uint16_t*>(p), min(set1(65504.0f), max(set1(-65504.0f), v)));
    else
        store(reinterpret_cast<float*>(p), v);
}

template <CacheType type>
void store_floats(const KvLayout& kv, uint8_t* block, int64_t position, const float* key,
                  const float* value) {
    constexpr int64_t size = kElementBytes<type>;
    uint8_t* values = block + kv.value_offset + position * kv.padded_head_dim * size;
    for (int64_t i = 0; i < kv.head_dim; i += 16) {
        const int64_t n = kv.head_dim - i < 16 ? kv.head_dim - i : 16;
        alignas(64) uint8_t lanes[64];
        store_16<type>(lanes, load_some(key + i, n, 0.0f));
        for (int64_t d = 0; d < n; d++)
            __builtin_memcpy(block + ((i + d) * puna::kBlockTokens + position) * size, lanes + d * size,
                             size);
        store_16<type>(values + i * size, load_some(value + i, n, 0.0f));
    }
}

void store_kv(const KvLayout& kv, uint8_t* block, int64_t position, const float* key, const float* value) {
    switch (kv.type) {
        case CacheType::f32:
            return store_floats<CacheType::f32>(kv, block, position, key, value);
        case CacheType::f16:
            return store_floats<CacheType::f16>(kv, block, position, key, value);
        case CacheType::int8:
            return store_int8(kv, block, position, key, value);
    }
}

}  // namespace
