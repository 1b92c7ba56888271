// Keys and values for the tests of attention: as they were, as the cache has them, and what attention makes
// of them in float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/half.h"
#include "kernels/table.h"
#include "tests/check.h"

namespace puna::test {

// Keys and values [position][head_dim] of one head.
struct History {
    std::vector<float> keys, values;
};

// Random ones, the first of them all zero.
inline History random_history(int64_t length, int64_t head_dim, uint32_t seed) {
    History history{random_floats(length * head_dim, seed), random_floats(length * head_dim, seed + 1)};
    std::fill_n(history.keys.begin(), head_dim, 0.0f);
    std::fill_n(history.values.begin(), head_dim, 0.0f);
    return history;
}

inline float number_at(CacheType type, const uint8_t* block, int64_t i) {
    if (type == CacheType::f32) return reinterpret_cast<const float*>(block)[i];
    if (type == CacheType::f16) return f16_to_f32(reinterpret_cast<const uint16_t*>(block)[i]);
    return static_cast<float>(reinterpret_cast<const int8_t*>(block)[i]);
}

// What is in the cache, read as kernels/table.h describes it.
inline History read_back(const KvLayout& kv, const uint8_t* base, const int32_t* ids, int64_t length) {
    History history;
    for (int64_t t = 0; t < length; t++) {
        const uint8_t* block = base + ids[t / kBlockTokens] * kv.block_bytes;
        const auto* key_scale = reinterpret_cast<const float*>(block + kv.key_scale_offset);
        const auto* value_scale = reinterpret_cast<const float*>(block + kv.value_scale_offset);
        const int64_t p = t % kBlockTokens;
        for (int64_t d = 0; d < kv.head_dim; d++) {
            float key = number_at(kv.type, block, d * kBlockTokens + p),
                  value = number_at(kv.type, block + kv.value_offset, p * kv.padded_head_dim + d);
            if (kv.type == CacheType::int8) {
                key *= key_scale[d / kKeyGroup * kBlockTokens + p];
                value *= value_scale[p];
            }
            history.keys.push_back(key);
            history.values.push_back(value);
        }
    }
    return history;
}

// Whether every number is the nearest one that the format has: of int8, among 255 for `group` neighbours.
inline bool is_nearest(CacheType type, const std::vector<float>& found, const std::vector<float>& wanted,
                       int64_t head_dim, int64_t group) {
    for (size_t i = 0; i < wanted.size(); i++) {
        const size_t row = i - i % static_cast<size_t>(head_dim), d = i - row;
        const size_t begin = row + d - d % static_cast<size_t>(group),
                     end = std::min(begin + static_cast<size_t>(group), row + static_cast<size_t>(head_dim));
        float largest = 0;
        for (size_t j = begin; j < end; j++) largest = std::max(largest, std::fabs(wanted[j]));
        const double error = std::fabs(double{found[i]} - wanted[i]);
        if (type == CacheType::f32 && error != 0) return false;
        if (type == CacheType::f16 && found[i] != f16_to_f32(f32_to_f16(wanted[i]))) return false;
        if (type == CacheType::int8 && error > 0.50001 * largest / 127) return false;
    }
    return true;
}

// One query over the positions before `length`, in float64.
inline std::vector<double> exact(const History& history, const float* query, int64_t head_dim,
                                 int64_t length) {
    std::vector<double> scores(static_cast<size_t>(length)), out(static_cast<size_t>(head_dim));
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t t = 0; t < length; t++) {
        double score = 0;
        for (int64_t d = 0; d < head_dim; d++)
            score += double{query[d]} * history.keys[static_cast<size_t>(t * head_dim + d)];
        scores[static_cast<size_t>(t)] = score / std::sqrt(static_cast<double>(head_dim));
        top = std::max(top, scores[static_cast<size_t>(t)]);
    }
    for (int64_t t = 0; t < length; t++) {
        const double weight = std::exp(scores[static_cast<size_t>(t)] - top);
        sum += weight;
        for (int64_t d = 0; d < head_dim; d++)
            out[static_cast<size_t>(d)] += weight * history.values[static_cast<size_t>(t * head_dim + d)];
    }
    for (double& v : out) v /= sum;
    return out;
}

inline bool is_close(const float* found, const std::vector<double>& expected) {
    // Values of size 1, weights that sum to 1: 1e-5 is some 80 units in the last place.
    for (size_t d = 0; d < expected.size(); d++)
        if (!(std::fabs(found[d] - expected[d]) <= 1e-5)) {
            std::printf("  got %.9g, exactly %.9g\n", double{found[d]}, expected[d]);
            return false;
        }
    return true;
}

// What a block holds where nothing was written must not matter: NaN in every format.
inline void fill_with_nan(uint8_t* bytes, int64_t n) { std::memset(bytes, 0xff, static_cast<size_t>(n)); }

}  // namespace puna::test
