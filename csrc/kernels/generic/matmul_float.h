// Products of float and bfloat16 weights.
#pragma once

namespace {

// R rows of x against a tile.
struct F32Tile {
    template <int R>
    static void run(const Product& p, int64_t tile, int64_t row) {
        const uint8_t* bytes = p.weights + tile * puna::tile_bytes(puna::Format::f32, p.columns);
        const float* w = reinterpret_cast<const float*>(bytes);
        const float* x = p.x.values + row * p.x.stride;
        F32x16 acc[R];
        for (int r = 0; r < R; r++) acc[r] = set1(0.0f);
        for (int64_t k = 0; k < p.columns; k++) {
            const F32x16 wk = load(w + 16 * k);
            for (int r = 0; r < R; r++) acc[r] = fma(wk, set1(x[r * p.x.stride + k]), acc[r]);
        }
        for (int r = 0; r < R; r++) store(p.y + (row + r) * p.y_stride + 16 * tile, acc[r]);
    }
};

// Inputs are rounded to bfloat16 too. Within 32 columns the even and the odd ones are summed apart and then
// added to the total: the order of an AMX tile product, so that a path with tiles gives the same bits.
constexpr int64_t kBf16Step = 32;

struct Bf16Tile {
    template <int R>
    static void run(const Product& p, int64_t tile, int64_t row) {
        const uint8_t* bytes = p.weights + tile * puna::tile_bytes(puna::Format::bf16, p.columns);
        const uint16_t* w = reinterpret_cast<const uint16_t*>(bytes);
        const uint16_t* x = p.x.half + row * p.x.q_stride;
        F32x16 total[R];
        for (int r = 0; r < R; r++) total[r] = set1(0.0f);
        for (int64_t first = 0; first < p.columns; first += kBf16Step) {
            F32x16 even[R], odd[R], w_even, w_odd, x_even, x_odd;
            for (int r = 0; r < R; r++) even[r] = odd[r] = set1(0.0f);
            for (int64_t k = first; k < first + kBf16Step; k += 2) {
                load_bf16_pairs(w + 16 * k, w_even, w_odd);
                for (int r = 0; r < R; r++) {
                    set1_bf16_pair(x + r * p.x.q_stride + k, x_even, x_odd);
                    even[r] = fma(w_even, x_even, even[r]);
                    odd[r] = fma(w_odd, x_odd, odd[r]);
                }
            }
            for (int r = 0; r < R; r++) total[r] = total[r] + (even[r] + odd[r]);
        }
        for (int r = 0; r < R; r++) store(p.y + (row + r) * p.y_stride + 16 * tile, total[r]);
    }
};

}  // namespace
