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

// Adds the products of a run of each of T tiles, [16 rows][4 columns] of which the first is given, and the
// v-th run of R rows of x.
template <int T, int R, int... part>
inline void add_run(I32x16 (&sums)[T][R], const uint8_t* run, int64_t tile_bytes, const Factor* x,
                    int64_t stride, int v, std::integer_sequence<int, part...>) {
    U8x64 w[T];
    for (int t = 0; t < T; t++) w[t] = load_u8(run + t * tile_bytes);
    const auto add = [&]<int i>(std::integral_constant<int, i>) {
        U8x64 some[T];
        for (int t = 0; t < T; t++) some[t] = part_of<i>(w[t]);
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) sums[t][r] = dot4<i>(sums[t][r], some[t], x + r * stride, v);
    };
    (add(std::integral_constant<int, part>()), ...);
}
template <int T, int R>
inline void add_run(I32x16 (&sums)[T][R], const uint8_t* run, int64_t tile_bytes, const Factor* x,
                    int64_t stride, int v) {
    add_run(sums, run, tile_bytes, x, stride, v, std::make_integer_sequence<int, kParts>());
}

// R rows of x against T tiles.
struct Int8ChannelTile {
    static constexpr bool takes_two = true;

    template <int T, int R>
    static void run(const Product& p, int64_t tile, int64_t row, Ahead ahead) {
        const int64_t bytes = puna::tile_bytes(puna::Format::int8_channel, p.columns);
        const uint8_t* w = p.weights + tile * bytes;
        const Factor* x = factors<Factor>(p, row);
        I32x16 acc[T][R];
        for (int t = 0; t < T; t++)
            for (int r = 0; r < R; r++) acc[t][r] = i32_zero();
        for (int64_t g = 0; g < p.columns / puna::kGroup; g++) {
            const int64_t k = g * puna::kGroup;
            for (int v = 0; v < 8; v++) {
                if constexpr (asks_ahead<R>) ahead.line(g / 2, 8 * (g % 2) + v);
                add_run(acc, w + 16 * k + 64 * v, bytes, x + k, p.x.q_stride, v);
            }
        }
        // A loop would want the sums in memory, and the one above would write them there.
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            int32_t sum = 0;
            for (int64_t g = 0; g < p.columns / puna::kGroup; g++)
                sum += p.x.group_sum[(row + r) * (p.x.stride / puna::kGroup) + g];
#pragma GCC unroll 2
            for (int t = 0; t < T; t++) {
                const auto* tail = reinterpret_cast<const puna::ChannelTail*>(w + t * bytes + 16 * p.columns);
                const I32x16 centred = acc[t][r] - i32_set1(128 * sum);
                const I32x16 exact = centred - i32_load(tail->row_sum) * i32_set1(p.x.zero[row + r]);
                const F32x16 y = to_f32(exact) * load(tail->scale) * set1(p.x.scale[row + r]);
                store(p.y + (row + r) * p.y_stride + 16 * (tile + t), y);
            }
        }
    }
};

// What the grouped formats differ in: how a group of T tiles, of which the first one's block is given, is
// multiplied with 32 activations of R rows.
struct Int8Group {
    using Block = puna::Int8GroupBlock;
    static constexpr puna::Format format = puna::Format::int8_group32;
    static constexpr int offset_bits = 7;
    static const Factor* rows(const Product& p, int64_t row) { return factors<Factor>(p, row); }

    template <int T, int R>
    static inline void dot(const uint8_t* block, int64_t tile_bytes, int g, const Factor* x, int64_t stride,
                           I32x16 (&sums)[T][R]) {
        for (int t = 0; t < T; t++)
            for (int r = 0; r < R; r++) sums[t][r] = i32_zero();
        for (int v = 0; v < 8; v++)
            add_run(sums, reinterpret_cast<const Block*>(block)->q[g][v], tile_bytes, x, stride, v);
    }
};
template <class B, puna::Format kFormat>
struct Int4Groups {
    using Block = B;
    static constexpr puna::Format format = kFormat;
    static constexpr int offset_bits = 3;
    static const int8_t* rows(const Product& p, int64_t row) { return p.x.q + row * p.x.q_stride; }

    template <int T, int R>
    static inline void dot(const uint8_t* block, int64_t tile_bytes, int g, const int8_t* x, int64_t stride,
                           I32x16 (&sums)[T][R]) {
        NibbleSum acc[T][R];
        for (int t = 0; t < T; t++)
            for (int r = 0; r < R; r++) acc[t][r] = nibble_zero();
        for (int v = 0; v < 4; v++) {
            U8x64 low[T], high[T];
            for (int t = 0; t < T; t++) {
                const auto* of_tile = reinterpret_cast<const Block*>(block + t * tile_bytes);
                load_nibbles(of_tile->q[g][v], low[t], high[t]);
            }
            for (int r = 0; r < R; r++)
                for (int t = 0; t < T; t++) {
                    acc[t][r] = dot4_nibble(acc[t][r], low[t], x + r * stride + 4 * v);
                    acc[t][r] = dot4_nibble(acc[t][r], high[t], x + r * stride + 16 + 4 * v);
                }
        }
        for (int t = 0; t < T; t++)
            for (int r = 0; r < R; r++) sums[t][r] = to_i32(acc[t][r]);
    }
};
using Int4Group = Int4Groups<puna::Int4GroupBlock, puna::Format::int4_group32>;
using Int4WideGroup = Int4Groups<puna::Int4WideGroupBlock, puna::Format::int4_group32_f32>;

// The scales of sixteen rows, however a format keeps them.
inline F32x16 load_scales(const uint16_t* scale) { return load_f16(scale); }
inline F32x16 load_scales(const float* scale) { return load(scale); }

// R rows of x against T tiles.
template <class Group>
struct GroupTile {
    static constexpr bool takes_two = true;

    template <int T, int R>
    static void run(const Product& p, int64_t tile, int64_t row, Ahead ahead) {
        using Block = typename Group::Block;
        const int64_t bytes = puna::tile_bytes(Group::format, p.columns), n_blocks = p.columns / 64;
        const int64_t sums_stride = p.x.stride / puna::kGroup;
        const auto* x = Group::rows(p, row);
        const int32_t* sums = p.x.group_sum + row * sums_stride;
        const uint8_t* w = p.weights + tile * bytes;
        F32x16 total[T][R];
        for (int t = 0; t < T; t++)
            for (int r = 0; r < R; r++) total[t][r] = set1(0.0f);
        for (int64_t b = 0; b < n_blocks; b++, w += sizeof(Block)) {
            if constexpr (asks_ahead<R>) ahead.block<Block>(b);
            for (int g = 0; g < 2; g++) {
                const int64_t group = 2 * b + g;
                I32x16 dots[T][R];
                Group::dot(w, bytes, g, x + group * puna::kGroup, p.x.q_stride, dots);
                F32x16 scale[T];
                for (int t = 0; t < T; t++)
                    scale[t] = load_scales(reinterpret_cast<const Block*>(w + t * bytes)->scale[g]);
                for (int r = 0; r < R; r++) {
                    const I32x16 offset =
                        shift_left<Group::offset_bits>(i32_set1(sums[r * sums_stride + group]));
                    for (int t = 0; t < T; t++)
                        total[t][r] = fma(scale[t], to_f32(dots[t][r] - offset), total[t][r]);
                }
            }
        }
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) {
                const F32x16 zero = set1(-static_cast<float>(p.x.zero[row + r]));
                const F32x16 weight_sum = load(reinterpret_cast<const float*>(w + t * bytes));
                const F32x16 y = fma(zero, weight_sum, total[t][r]) * set1(p.x.scale[row + r]);
                store(p.y + (row + r) * p.y_stride + 16 * (tile + t), y);
            }
    }
};

}  // namespace
