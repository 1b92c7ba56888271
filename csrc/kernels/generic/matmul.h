// Weights times rows of activations, for every format, written once on the vector vocabulary.
//
// Lanes are the 16 output rows of a tile. A float product runs over the columns in ascending order, one fused
// multiply-add each; for bf16 see below. An integer product is, with u = q + offset the stored byte and (x,
// z, s) an activation row's integers, zero point and scale:
//   sum_q = dot(u, x) - offset * sum(x)                     exact, a group or the whole row
//   grouped: y = s * (sum over groups of scale_g * sum_q  -  z * sum of dequantized weights)
//   channel: y = s * (scale * (sum_q - z * sum of q))
// The same operations in the same order for one row and for many.
#pragma once

namespace {

using puna::Activations;
using puna::Product;

// R rows of x against T neighbouring tiles; several sums run at once to hide the latency of an addition.
template <int R, int T>
void f32_tiles(const Product& p, int64_t tile, int64_t row) {
    const int64_t bytes = puna::tile_bytes(puna::Format::f32, p.columns);
    const float* w = reinterpret_cast<const float*>(p.weights + tile * bytes);
    const float* x = p.x.values + row * p.x.stride;
    F32x16 acc[R][T];
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) acc[r][t] = set1(0.0f);
    for (int64_t k = 0; k < p.columns; k++) {
        F32x16 xk[R];
        for (int r = 0; r < R; r++) xk[r] = set1(x[r * p.x.stride + k]);
        for (int t = 0; t < T; t++) {
            const F32x16 wk = load(w + t * (bytes / 4) + 16 * k);
            for (int r = 0; r < R; r++) acc[r][t] = fma(wk, xk[r], acc[r][t]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) store(p.y + (row + r) * p.y_stride + 16 * (tile + t), acc[r][t]);
}

// Inputs are rounded to bfloat16 too. Within 32 columns the even and the odd ones are summed apart and then
// added to the total: the order of an AMX tile product, so that a path with tiles gives the same bits.
constexpr int64_t kBf16Step = 32;

template <int R, int T>
void bf16_tiles(const Product& p, int64_t tile, int64_t row) {
    const int64_t bytes = puna::tile_bytes(puna::Format::bf16, p.columns);
    const uint16_t* x = p.x.half + row * p.x.q_stride;
    for (int t = 0; t < T; t++) {
        const uint16_t* w = reinterpret_cast<const uint16_t*>(p.weights + (tile + t) * bytes);
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
        for (int r = 0; r < R; r++) store(p.y + (row + r) * p.y_stride + 16 * (tile + t), total[r]);
    }
}

template <int R, int T>
void int8_channel_tiles(const Product& p, int64_t first_tile, int64_t row) {
    const int64_t bytes = puna::tile_bytes(puna::Format::int8_channel, p.columns);
    const int8_t* x = p.x.q + row * p.x.q_stride;
    for (int t = 0; t < T; t++) {
        const uint8_t* w = p.weights + (first_tile + t) * bytes;
        I32x16 acc[R];
        for (int r = 0; r < R; r++) acc[r] = i32_zero();
        for (int64_t k = 0; k < p.columns; k += 4) {
            const U8x64 wk = load_u8(w + 16 * k);
            for (int r = 0; r < R; r++) acc[r] = dot4(acc[r], wk, x + r * p.x.q_stride + k);
        }
        const auto* tail = reinterpret_cast<const puna::ChannelTail*>(w + 16 * p.columns);
        for (int r = 0; r < R; r++) {
            int32_t sum = 0;
            for (int64_t g = 0; g < p.columns / puna::kGroup; g++)
                sum += p.x.group_sum[(row + r) * (p.x.stride / puna::kGroup) + g];
            const I32x16 centred = acc[r] - i32_set1(128 * sum);
            const I32x16 exact = centred - i32_load(tail->row_sum) * i32_set1(p.x.zero[row + r]);
            const F32x16 y = to_f32(exact) * load(tail->scale) * set1(p.x.scale[row + r]);
            store(p.y + (row + r) * p.y_stride + 16 * (first_tile + t), y);
        }
    }
}

// What the two grouped formats differ in: how a group's sixteen rows are multiplied with 32 activations.
struct Int8Group {
    using Block = puna::Int8GroupBlock;
    static constexpr puna::Format format = puna::Format::int8_group32;
    static constexpr int32_t offset = 128;

    template <int R>
    static inline void dot(const Block& block, int g, const int8_t* x, int64_t stride, I32x16* acc) {
        for (int v = 0; v < 8; v++) {
            const U8x64 w = load_u8(block.q[g][v]);
            for (int r = 0; r < R; r++) acc[r] = dot4(acc[r], w, x + r * stride + 4 * v);
        }
    }
};
struct Int4Group {
    using Block = puna::Int4GroupBlock;
    static constexpr puna::Format format = puna::Format::int4_group32;
    static constexpr int32_t offset = 8;

    template <int R>
    static inline void dot(const Block& block, int g, const int8_t* x, int64_t stride, I32x16* acc) {
        for (int v = 0; v < 4; v++) {
            U8x64 low, high;
            load_nibbles(block.q[g][v], low, high);
            for (int r = 0; r < R; r++) {
                acc[r] = dot4_nibble(acc[r], low, x + r * stride + 4 * v);
                acc[r] = dot4_nibble(acc[r], high, x + r * stride + 16 + 4 * v);
            }
        }
    }
};

template <class Group, int R, int T>
void group_tiles(const Product& p, int64_t first_tile, int64_t row) {
    using Block = typename Group::Block;
    const int64_t bytes = puna::tile_bytes(Group::format, p.columns), n_blocks = p.columns / 64;
    const int64_t sums_stride = p.x.stride / puna::kGroup;
    const int8_t* x = p.x.q + row * p.x.q_stride;
    const int32_t* sums = p.x.group_sum + row * sums_stride;
    for (int t = 0; t < T; t++) {
        const uint8_t* tile = p.weights + (first_tile + t) * bytes;
        const Block* blocks = reinterpret_cast<const Block*>(tile);
        F32x16 total[R];
        for (int r = 0; r < R; r++) total[r] = set1(0.0f);
        for (int64_t b = 0; b < n_blocks; b++) {
            for (int g = 0; g < 2; g++) {
                const int64_t group = 2 * b + g;
                I32x16 acc[R];
                for (int r = 0; r < R; r++) acc[r] = i32_zero();
                Group::template dot<R>(blocks[b], g, x + group * puna::kGroup, p.x.q_stride, acc);
                const F32x16 scale = load_f16(blocks[b].scale[g]);
                for (int r = 0; r < R; r++) {
                    const int32_t sum = sums[r * sums_stride + group];
                    const I32x16 exact = acc[r] - i32_set1(Group::offset * sum);
                    total[r] = fma(scale, to_f32(exact), total[r]);
                }
            }
        }
        const F32x16 weight_sum = load(reinterpret_cast<const float*>(blocks + n_blocks));
        for (int r = 0; r < R; r++) {
            const F32x16 zero = set1(-static_cast<float>(p.x.zero[row + r]));
            const F32x16 y = fma(zero, weight_sum, total[r]) * set1(p.x.scale[row + r]);
            store(p.y + (row + r) * p.y_stride + 16 * (first_tile + t), y);
        }
    }
}
template <int R, int T>
void int8_group_tiles(const Product& p, int64_t tile, int64_t row) {
    group_tiles<Int8Group, R, T>(p, tile, row);
}
template <int R, int T>
void int4_group_tiles(const Product& p, int64_t tile, int64_t row) {
    group_tiles<Int4Group, R, T>(p, tile, row);
}

using Tiles = void (*)(const Product&, int64_t tile, int64_t row);

// All rows of x against each tile while its weights are in the nearest cache, four rows at a time.
// A single row goes through several tiles at once instead.
inline void over_tiles(const Product& p, Tiles four_rows, Tiles one_row, Tiles one_row_four_tiles) {
    int64_t tile = p.tile_begin;
    if (p.x.rows == 1)
        for (; tile + 4 <= p.tile_end; tile += 4) one_row_four_tiles(p, tile, 0);
    for (; tile < p.tile_end; tile++) {
        int64_t row = 0;
        for (; row + 4 <= p.x.rows; row += 4) four_rows(p, tile, row);
        for (; row < p.x.rows; row++) one_row(p, tile, row);
    }
}

void matmul(const Product& p) {
    using puna::Format;
    switch (p.format) {
        case Format::f32:
            return over_tiles(p, f32_tiles<4, 1>, f32_tiles<1, 1>, f32_tiles<1, 4>);
        case Format::bf16:
            return over_tiles(p, bf16_tiles<4, 1>, bf16_tiles<1, 1>, bf16_tiles<1, 4>);
        case Format::int8_channel:
            return over_tiles(p, int8_channel_tiles<4, 1>, int8_channel_tiles<1, 1>,
                              int8_channel_tiles<1, 4>);
        case Format::int8_group32:
            return over_tiles(p, int8_group_tiles<4, 1>, int8_group_tiles<1, 1>, int8_group_tiles<1, 4>);
        case Format::int4_group32:
            return over_tiles(p, int4_group_tiles<4, 1>, int4_group_tiles<1, 1>, int4_group_tiles<1, 4>);
    }
}

// The same product without its first rows.
[[maybe_unused]] inline Product rows_from(Product p, int64_t first) {
    p.x.values += first * p.x.stride;
    p.x.q += first * p.x.q_stride;
    p.x.half += first * p.x.q_stride;
    p.x.scale += first;
    p.x.zero += first;
    p.x.group_sum += first * (p.x.stride / puna::kGroup);
    p.x.rows -= first;
    p.y += first * p.y_stride;
    return p;
}

void unpack_row(puna::Format format, const uint8_t* weights, int64_t columns, int64_t row, float* out) {
    using puna::Format;
    const uint8_t* tile = weights + row / 16 * puna::tile_bytes(format, columns);
    const int64_t lane = row % 16;
    for (int64_t k = 0; k < columns; k++) {
        const int64_t g = k / 32 % 2, run = k % 32 / 4, c = k % 4;
        switch (format) {
            case Format::f32:
                out[k] = reinterpret_cast<const float*>(tile)[16 * k + lane];
                break;
            case Format::bf16:
                out[k] =
                    puna::bf16_to_f32(reinterpret_cast<const uint16_t*>(tile)[k / 2 * 32 + 2 * lane + k % 2]);
                break;
            case Format::int8_channel: {
                const auto* tail = reinterpret_cast<const puna::ChannelTail*>(tile + 16 * columns);
                out[k] = static_cast<float>(tile[k / 4 * 64 + 4 * lane + c] - 128) * tail->scale[lane];
                break;
            }
            case Format::int8_group32: {
                const auto& block = reinterpret_cast<const puna::Int8GroupBlock*>(tile)[k / 64];
                const int q = block.q[g][run][4 * lane + c] - 128;
                out[k] = static_cast<float>(q) * puna::f16_to_f32(block.scale[g][lane]);
                break;
            }
            case Format::int4_group32: {
                const auto& block = reinterpret_cast<const puna::Int4GroupBlock*>(tile)[k / 64];
                const uint8_t byte = block.q[g][run % 4][4 * lane + c];
                const int q = (run < 4 ? byte & 15 : byte >> 4) - 8;
                out[k] = static_cast<float>(q) * puna::f16_to_f32(block.scale[g][lane]);
                break;
            }
        }
    }
}

}  // namespace
