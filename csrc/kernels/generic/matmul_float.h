// Products of float and bfloat16 weights.
#pragma once

namespace {

// R rows of x against a tile.
struct F32Tile {
    static constexpr bool takes_two = false;

    template <int T, int R>
    static void run(const Product& p, int64_t tile, int64_t row, Ahead) {
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
    static constexpr bool takes_two = false;

    template <int T, int R>
    static void run(const Product& p, int64_t tile, int64_t row, Ahead ahead) {
        const uint8_t* bytes = p.weights + tile * puna::tile_bytes(puna::Format::bf16, p.columns);
        const uint16_t* w = reinterpret_cast<const uint16_t*>(bytes);
        const uint16_t* x = p.x.half + row * p.x.q_stride;
        F32x16 total[R];
        for (int r = 0; r < R; r++) total[r] = set1(0.0f);
        for (int64_t k = 0; k < p.columns; k += kBf16Step) {
            const int64_t b = k / puna::kColumnBlock, first = k % puna::kColumnBlock / 2;
            for (int64_t i = 0; i < kBf16Step / 2; i++) ahead.line(b, first + i);
            // One after the other: together their sums would take twice the registers.
            F32x16 even[R], odd[R];
            sum<0, R>(w + 16 * k, x + k, p.x.q_stride, even);
            sum<1, R>(w + 16 * k, x + k, p.x.q_stride, odd);
            for (int r = 0; r < R; r++) total[r] = total[r] + (even[r] + odd[r]);
        }
        for (int r = 0; r < R; r++) store(p.y + (row + r) * p.y_stride + 16 * tile, total[r]);
    }

  private:
    // The even (0) or odd (1) columns of a step.
    template <int which, int R>
    static inline void sum(const uint16_t* w, const uint16_t* x, int64_t stride, F32x16* acc) {
        for (int r = 0; r < R; r++) acc[r] = set1(0.0f);
        for (int64_t k = 0; k < kBf16Step; k += 2) {
            const F32x16 wk = load_bf16_of_pairs<which>(w + 16 * k);
            for (int r = 0; r < R; r++)
                acc[r] = fma(wk, set1_bf16_of_pair<which>(x + r * stride + k), acc[r]);
        }
    }
};

}  // namespace
