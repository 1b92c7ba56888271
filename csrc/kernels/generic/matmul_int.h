// Products of int8 and int4 weights with int8 activations.
#pragma once

namespace {

// R rows of x against a tile.
struct Int8ChannelTile {
    template <int R>
    static void run(const Product& p, int64_t tile, int64_t row) {
        const uint8_t* w = p.weights + tile * puna::tile_bytes(puna::Format::int8_channel, p.columns);
        const int8_t* x = p.x.q + row * p.x.q_stride;
        I32x16 acc[R];
        for (int r = 0; r < R; r++) acc[r] = i32_zero();
        for (int64_t k = 0; k < p.columns; k += 4) {
            if constexpr (R > 1) prefetch_behind(w + 16 * k, 64);
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
            store(p.y + (row + r) * p.y_stride + 16 * tile, y);
        }
    }
};

// What the grouped formats differ in: how a group's sixteen rows are multiplied with 32 activations.
struct Int8Group {
    using Block = puna::Int8GroupBlock;
    static constexpr puna::Format format = puna::Format::int8_group32;
    static constexpr int offset_bits = 7;

    template <int R>
    static inline void dot(const Block& block, int g, const int8_t* x, int64_t stride, I32x16* sums) {
        for (int r = 0; r < R; r++) sums[r] = i32_zero();
        for (int v = 0; v < 8; v++) {
            const U8x64 w = load_u8(block.q[g][v]);
            for (int r = 0; r < R; r++) sums[r] = dot4(sums[r], w, x + r * stride + 4 * v);
        }
    }
};
template <class B, puna::Format kFormat>
struct Int4Groups {
    using Block = B;
    static constexpr puna::Format format = kFormat;
    static constexpr int offset_bits = 3;

    template <int R>
    static inline void dot(const Block& block, int g, const int8_t* x, int64_t stride, I32x16* sums) {
        NibbleSum acc[R];
        for (int r = 0; r < R; r++) acc[r] = nibble_zero();
        for (int v = 0; v < 4; v++) {
            U8x64 low, high;
            load_nibbles(block.q[g][v], low, high);
            for (int r = 0; r < R; r++) {
                acc[r] = dot4_nibble(acc[r], low, x + r * stride + 4 * v);
                acc[r] = dot4_nibble(acc[r], high, x + r * stride + 16 + 4 * v);
            }
        }
        for (int r = 0; r < R; r++) sums[r] = to_i32(acc[r]);
    }
};
using Int4Group = Int4Groups<puna::Int4GroupBlock, puna::Format::int4_group32>;
using Int4WideGroup = Int4Groups<puna::Int4WideGroupBlock, puna::Format::int4_group32_f32>;

// The scales of sixteen rows, however a format keeps them.
inline F32x16 load_scales(const uint16_t* scale) { return load_f16(scale); }
inline F32x16 load_scales(const float* scale) { return load(scale); }

template <class Group>
struct GroupTile {
    template <int R>
    static void run(const Product& p, int64_t tile, int64_t row) {
        using Block = typename Group::Block;
        const int64_t bytes = puna::tile_bytes(Group::format, p.columns), n_blocks = p.columns / 64;
        const int64_t sums_stride = p.x.stride / puna::kGroup;
        const int8_t* x = p.x.q + row * p.x.q_stride;
        const int32_t* sums = p.x.group_sum + row * sums_stride;
        const Block* blocks = reinterpret_cast<const Block*>(p.weights + tile * bytes);
        F32x16 total[R];
        for (int r = 0; r < R; r++) total[r] = set1(0.0f);
        for (int64_t b = 0; b < n_blocks; b++) {
            if constexpr (R > 1) prefetch_behind(blocks + b, sizeof(Block));
            for (int g = 0; g < 2; g++) {
                const int64_t group = 2 * b + g;
                I32x16 dots[R];
                Group::template dot<R>(blocks[b], g, x + group * puna::kGroup, p.x.q_stride, dots);
                const F32x16 scale = load_scales(blocks[b].scale[g]);
                for (int r = 0; r < R; r++) {
                    const I32x16 sum = i32_set1(sums[r * sums_stride + group]);
                    total[r] = fma(scale, to_f32(dots[r] - shift_left<Group::offset_bits>(sum)), total[r]);
                }
            }
        }
        const F32x16 weight_sum = load(reinterpret_cast<const float*>(blocks + n_blocks));
        for (int r = 0; r < R; r++) {
            const F32x16 zero = set1(-static_cast<float>(p.x.zero[row + r]));
            const F32x16 y = fma(zero, weight_sum, total[r]) * set1(p.x.scale[row + r]);
            store(p.y + (row + r) * p.y_stride + 16 * tile, y);
        }
    }
};

}  // namespace
