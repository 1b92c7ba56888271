// Products of int8 and int4 weights with int8 activations.
#pragma once

namespace {

// Rows of x as `dot4` reads them.
template <class T>
inline const T* factors(const Product& p, int64_t row) {
    if constexpr (std::is_same_v<T, int16_t>)
        return p.x.wide + row * p.x.q_stride;
    else
        return p.x.q + row * p.x.q_stride;
}

// Adds the products of a run of sixteen rows, [16 rows][4 columns], and the v-th run of R rows of x.
template <int R, int... part>
inline void add_run(I32x16* sums, const uint8_t* run, const Factor* x, int64_t stride, int v,
                    std::integer_sequence<int, part...>) {
    const U8x64 w = load_u8(run);
    const auto add = [&]<int i>(std::integral_constant<int, i>) {
        const U8x64 some = part_of<i>(w);
        for (int r = 0; r < R; r++) sums[r] = dot4<i>(sums[r], some, x + r * stride, v);
    };
    (add(std::integral_constant<int, part>()), ...);
}
template <int R>
inline void add_run(I32x16* sums, const uint8_t* run, const Factor* x, int64_t stride, int v) {
    add_run<R>(sums, run, x, stride, v, std::make_integer_sequence<int, kParts>());
}

// R rows of x against a tile.
struct Int8ChannelTile {
    template <int R>
    static void run(const Product& p, int64_t tile, int64_t row, Ahead ahead) {
        const uint8_t* w = p.weights + tile * puna::tile_bytes(puna::Format::int8_channel, p.columns);
        const Factor* x = factors<Factor>(p, row);
        I32x16 acc[R];
        for (int r = 0; r < R; r++) acc[r] = i32_zero();
        for (int64_t g = 0; g < p.columns / puna::kGroup; g++) {
            const int64_t k = g * puna::kGroup;
            for (int v = 0; v < 8; v++) {
                if constexpr (asks_ahead<R>) ahead.line(g / 2, 8 * (g % 2) + v);
                add_run<R>(acc, w + 16 * k + 64 * v, x + k, p.x.q_stride, v);
            }
        }
        const auto* tail = reinterpret_cast<const puna::ChannelTail*>(w + 16 * p.columns);
        // A loop would want the sums in memory, and the one above would write them there.
#pragma GCC unroll 8
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
    static const Factor* rows(const Product& p, int64_t row) { return factors<Factor>(p, row); }

    template <int R>
    static inline void dot(const Block& block, int g, const Factor* x, int64_t stride, I32x16* sums) {
        for (int r = 0; r < R; r++) sums[r] = i32_zero();
        for (int v = 0; v < 8; v++) add_run<R>(sums, block.q[g][v], x, stride, v);
    }
};
template <class B, puna::Format kFormat>
struct Int4Groups {
    using Block = B;
    static constexpr puna::Format format = kFormat;
    static constexpr int offset_bits = 3;
    static const int8_t* rows(const Product& p, int64_t row) { return p.x.q + row * p.x.q_stride; }

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
    static void run(const Product& p, int64_t tile, int64_t row, Ahead ahead) {
        using Block = typename Group::Block;
        const int64_t bytes = puna::tile_bytes(Group::format, p.columns), n_blocks = p.columns / 64;
        const int64_t sums_stride = p.x.stride / puna::kGroup;
        const auto* x = Group::rows(p, row);
        const int32_t* sums = p.x.group_sum + row * sums_stride;
        const Block* blocks = reinterpret_cast<const Block*>(p.weights + tile * bytes);
        F32x16 total[R];
        for (int r = 0; r < R; r++) total[r] = set1(0.0f);
        for (int64_t b = 0; b < n_blocks; b++) {
            if constexpr (asks_ahead<R>) ahead.block<Block>(b);
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
