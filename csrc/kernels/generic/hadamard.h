// The Hadamard rotation, as a fast Walsh-Hadamard transform: log2(block) levels of sums and differences of
// values 1, 2, 4, ... apart. Every level rounds each value once, so the bits do not depend on how levels
// share a pass over the memory.
#pragma once

namespace {

constexpr float kSigns[4][16] = {{1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1},
                                 {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1},
                                 {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1},
                                 {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1}};

// One level within a vector: lane i and lane i + apart become their sum and their difference.
template <int apart>
inline F32x16 butterfly(F32x16 x) {
    constexpr int level = apart == 1 ? 0 : apart == 2 ? 1 : apart == 4 ? 2 : 3;
    return fma(x, load(kSigns[level]), swap_lanes<apart>(x));
}

// 1 / sqrt(block), rounded once.
inline float hadamard_factor(int64_t block) {
    float factor = 1.0f;
    for (; block >= 4; block /= 4) factor *= 0.5f;
    return block == 2 ? factor * 0.70710678118654752440f : factor;
}

// Levels within vectors, and the factor before them, so that nothing can overflow that need not.
inline void rotate_lanes(float* x, int64_t n, int64_t block) {
    const F32x16 factor = set1(hadamard_factor(block));
    for (int64_t i = 0; i < n; i += 16) {
        F32x16 v = load(x + i) * factor;
        if (block > 1) v = butterfly<1>(v);
        if (block > 2) v = butterfly<2>(v);
        if (block > 4) v = butterfly<4>(v);
        if (block > 8) v = butterfly<8>(v);
        store(x + i, v);
    }
}

// The levels `apart` and 2 * apart of 4 * apart values.
inline void rotate_two_levels(float* x, int64_t apart) {
    for (int64_t i = 0; i < apart; i += 16) {
        const F32x16 a = load(x + i), b = load(x + apart + i), c = load(x + 2 * apart + i),
                     d = load(x + 3 * apart + i);
        const F32x16 sum = a + b, difference = a - b, sum_2 = c + d, difference_2 = c - d;
        store(x + i, sum + sum_2);
        store(x + apart + i, difference + difference_2);
        store(x + 2 * apart + i, sum - sum_2);
        store(x + 3 * apart + i, difference - difference_2);
    }
}

inline void rotate_one_level(float* x, int64_t apart) {
    for (int64_t i = 0; i < apart; i += 16) {
        const F32x16 a = load(x + i), b = load(x + apart + i);
        store(x + i, a + b);
        store(x + apart + i, a - b);
    }
}

void rotate_blocks(float* x, int64_t n, int64_t block) {
    rotate_lanes(x, n, block);
    int64_t apart = 16;
    for (; 4 * apart <= block; apart *= 4)
        for (int64_t i = 0; i < n; i += 4 * apart) rotate_two_levels(x + i, apart);
    if (apart < block)
        for (int64_t i = 0; i < n; i += 2 * apart) rotate_one_level(x + i, apart);
}

}  // namespace
