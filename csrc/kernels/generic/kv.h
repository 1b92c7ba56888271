// A block of the key-value cache: how positions are written to it and read from it.
#pragma once

namespace {

using puna::CacheType;
using puna::KvLayout;

template <CacheType type>
constexpr int64_t kElementBytes = type == CacheType::f16 ? 2 : 4;

template <CacheType type>
inline F32x16 load_kv(const uint8_t* p) {
    if constexpr (type == CacheType::f16)
        return load_f16(reinterpret_cast<const uint16_t*>(p));
    else
        return load(reinterpret_cast<const float*>(p));
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
void store_kv_as(const KvLayout& kv, uint8_t* block, int64_t position, const float* key, const float* value) {
    constexpr int64_t size = kElementBytes<type>;
    uint8_t* values = block + kv.key_bytes + position * kv.padded_head_dim * size;
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
    const auto store_as =
        kv.type == CacheType::f16 ? store_kv_as<CacheType::f16> : store_kv_as<CacheType::f32>;
    store_as(kv, block, position, key, value);
}

}  // namespace
