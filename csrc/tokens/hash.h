// Hashes for the tables of tokens and merges.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace puna {

// Drawn once a process, so that no file can be written whose tokens all meet in one place.
uint64_t hash_seed();

inline uint64_t mix_bits(uint64_t x) {
    x *= 0x9e3779b97f4a7c15u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ (x >> 29);
}

inline uint64_t hash_bytes(std::string_view text, uint64_t seed) {
    const char* p = text.data();
    size_t n = text.size();
    uint64_t hash = seed + n;
    const auto word = [](const char* from) {
        uint64_t value;
        std::memcpy(&value, from, sizeof(value));
        return value;
    };
    const auto half = [](const char* from) {
        uint32_t value;
        std::memcpy(&value, from, sizeof(value));
        return static_cast<uint64_t>(value);
    };
    for (; n > 8; p += 8, n -= 8) hash = mix_bits(hash ^ word(p));
    if (n >= 4) return mix_bits(hash ^ (half(p) | half(p + n - 4) << 32));
    uint64_t tail = 0;
    for (size_t i = 0; i < n; i++) tail |= static_cast<uint64_t>(static_cast<unsigned char>(p[i])) << 8 * i;
    return mix_bits(hash ^ tail);
}

}  // namespace puna
