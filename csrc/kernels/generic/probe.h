// What the machine gives at best: the work of a roofline's two limits, with nothing else beside it. What is
// returned only shows that the work was done.
#pragma once

namespace {

inline float lane_sum(const I32x16* sums, int n) {
    F32x16 total = to_f32(sums[0]);
    for (int i = 1; i < n; i++) total = total + to_f32(sums[i]);
    return reduce_sum(total);
}

float read_through(const uint8_t* data, int64_t n, int64_t ahead) {
    constexpr int kVectors = 4;
    I32x16 sums[kVectors] = {i32_zero(), i32_zero(), i32_zero(), i32_zero()};
    for (int64_t i = 0; i < n; i += 64 * kVectors) {
        for (int v = 0; v < kVectors; v++) {
            __builtin_prefetch(data + i + 64 * v + ahead);
            sums[v] = sums[v] - i32_load(reinterpret_cast<const int32_t*>(data + i + 64 * v));
        }
    }
    return lane_sum(sums, kVectors);
}

float multiply_bytes(int64_t n) {
    constexpr int kAllRows = 8, kRuns = 8, kWeights = 16;
    alignas(64) uint8_t weights[kWeights * 64];
    int8_t x[4 * kAllRows];
    for (int i = 0; i < kWeights * 64; i++) weights[i] = static_cast<uint8_t>(i % 16);
    for (int i = 0; i < 4 * kAllRows; i++) x[i] = static_cast<int8_t>(i);
    I32x16 sums[kAllRows];
    for (I32x16& sum : sums) sum = i32_zero();
    for (int64_t i = 0; i < n; i++) {
        for (int row = 0; row < kAllRows; row += kRows) {
            NibbleSum group[kRows];
            for (NibbleSum& sum : group) sum = nibble_zero();
            for (int run = 0; run < kRuns; run++) {
                // Another vector each time, or a compiler would multiply once only.
                const U8x64 w = load_u8(weights + 64 * ((i + run) % kWeights));
                for (int r = 0; r < kRows; r++) group[r] = dot4_nibble(group[r], w, x + 4 * (row + r));
            }
            for (int r = 0; r < kRows; r++) sums[row + r] = sums[row + r] - to_i32(group[r]);
        }
    }
    return lane_sum(sums, kAllRows);
}

}  // namespace
