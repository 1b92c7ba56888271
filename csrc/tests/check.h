// A few lines of test harness: REQUIRE prints what failed and counts it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

namespace puna::test {

inline int failures = 0;
inline int checks = 0;

#define REQUIRE(condition)                                                      \
    do {                                                                        \
        puna::test::checks++;                                                   \
        if (!(condition)) {                                                     \
            puna::test::failures++;                                             \
            std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
        }                                                                       \
    } while (false)

// Numbers of deviation `scale`, the same with every compiler: sums of four uniform ones.
inline std::vector<float> random_floats(int64_t n, uint32_t seed, float scale = 1.0f) {
    uint64_t state = seed * 2654435761u + 1;
    const auto uniform = [&] {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<float>(state >> 40) * 0x1.0p-24f - 0.5f;
    };
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = (uniform() + uniform() + uniform() + uniform()) * 1.7320508f * scale;
    return values;
}

// The same bits, NaN equal to NaN.
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); i++) {
        if (std::isnan(a[i]) && std::isnan(b[i])) continue;
        if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
            std::printf("  first difference at %zu of %zu: %.9g and %.9g\n", i, a.size(), a[i], b[i]);
            return false;
        }
    }
    return true;
}

// Names of the tables that this machine can run.
std::vector<const char*> runnable_isas();

void test_kernels();
void test_attention();
void test_forward();
void test_fuzz();
void test_sampler();
void test_pool();
void test_probe();
void test_tokens();

}  // namespace puna::test
