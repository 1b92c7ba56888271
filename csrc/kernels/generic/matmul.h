// Weights times rows of activations, for every format, written once on the vector vocabulary.
//
// Lanes are the 16 output rows of a tile. A float product runs over the columns in ascending order, one fused
// multiply-add each; for bf16 see matmul_float.h. An integer product is, with u = q + offset the stored byte
// and (x, z, s) an activation row's integers, zero point and scale:
//   sum_q = dot(u, x) - offset * sum(x)                     exact, a group or the whole row
//   grouped: y = s * (sum over groups of scale_g * sum_q  -  z * sum of dequantized weights)
//   channel: y = s * (scale * (sum_q - z * sum of q))
// The same operations in the same order for one row and for many.
#pragma once

#include "kernels/table.h"

namespace {

using puna::Product;

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Asks for memory before it is needed. Into the second cache: into the first, it took the place of loads and
// cost a tenth of the speed.
inline void prefetch(const uint8_t* p) { __builtin_prefetch(p, 0, 2); }
// Of the `bytes` that are needed when all of `rows` rows are done: the share of n of them.
[[maybe_unused]] inline void prefetch_share(const uint8_t* p, int64_t bytes, int64_t row, int64_t n,
                                            int64_t rows) {
    for (int64_t i = bytes * row / rows / 64 * 64; i < bytes * (row + n) / rows; i += 64) prefetch(p + i);
}

// What a pass over a tile asks for on its way, line by line: many requests at once would stop the arithmetic.
struct Ahead {
    const uint8_t* p;
    int64_t
        step;  // bytes for every kColumnBlock columns; where it is less than a block's, lines are named again

    // The i-th line of the b-th block of columns.
    void line(int64_t b, int64_t i) const { prefetch(p + b * step + 64 * i); }
    template <class Block>
    void block(int64_t b) const {
        for (int64_t i = 0; i < static_cast<int64_t>(sizeof(Block)) / 64; i++) line(b, i);
    }
};
// How far ahead a pass asks that waits for memory. One row of integers has next to no arithmetic: kFarOfOne
// is 0 where the processor's own guess is better.
constexpr int64_t kFar = 6144;
template <int R>
constexpr bool asks_ahead = R > 1 || kFarOfOne > 0;

}  // namespace

#include "kernels/generic/matmul_float.h"
#include "kernels/generic/matmul_int.h"

namespace {

using Tile = void (*)(const Product&, int64_t tile, int64_t row, Ahead);

// What n rows from `row` on ask for while they are multiplied with `tiles` tiles. All rows at once wait for
// these tiles; otherwise they are in the caches after the first rows, and all fetch the next ones together.
inline Ahead ahead_of(const Product& p, int64_t tile, int64_t tiles, int64_t row, int64_t n) {
    const int64_t n_blocks = p.columns / puna::kColumnBlock;
    const int64_t bytes = tiles * puna::tile_bytes(p.format, p.columns);
    const uint8_t* w = p.weights + tile * puna::tile_bytes(p.format, p.columns);
    if (n == p.x.rows) return {w + (n == 1 ? kFarOfOne : kFar), bytes / n_blocks};
    return {w + bytes + bytes * row / p.x.rows, bytes * n / p.x.rows / n_blocks};
}

// All rows of x, as many at a time as there are R, against T tiles whose weights stay in the nearest cache.
template <class Kernel, int T, int... R>
void over_rows(const Product& p, int64_t tile, std::integer_sequence<int, R...>) {
    constexpr Tile run[] = {nullptr, Kernel::template run<T, R + 1>...};
    constexpr int64_t most = sizeof...(R);
    for (int64_t row = 0; row < p.x.rows; row += most) {
        const int64_t n = least(p.x.rows - row, most);
        run[n](p, tile, row, ahead_of(p, tile, T, row, n));
    }
}
template <class Kernel>
void over_tiles(const Product& p) {
    int64_t tile = p.tile_begin;
    if constexpr (Kernel::takes_two && kRowsOfTwo > 0)
        if (p.x.rows >= kRows)
            for (; tile + 1 < p.tile_end; tile += 2)
                over_rows<Kernel, 2>(p, tile, std::make_integer_sequence<int, kRowsOfTwo>());
    for (; tile < p.tile_end; tile++) over_rows<Kernel, 1>(p, tile, std::make_integer_sequence<int, kRows>());
}

void matmul(const Product& p) {
    using puna::Format;
    switch (p.format) {
        case Format::f32:
            return over_tiles<F32Tile>(p);
        case Format::bf16:
            return over_tiles<Bf16Tile>(p);
        case Format::int8_channel:
            return over_tiles<Int8ChannelTile>(p);
        case Format::int8_group32:
            return over_tiles<GroupTile<Int8Group>>(p);
        case Format::int4_group32:
            return over_tiles<GroupTile<Int4Group>>(p);
        case Format::int4_group32_f32:
            return over_tiles<GroupTile<Int4WideGroup>>(p);
    }
}

// The same product without its first rows.
[[maybe_unused]] inline Product rows_from(Product p, int64_t first) {
    p.x.values += first * p.x.stride;
    p.x.q += first * p.x.q_stride;
    p.x.wide += first * p.x.q_stride;
    p.x.half += first * p.x.q_stride;
    p.x.scale += first;
    p.x.zero += first;
    p.x.group_sum += first * (p.x.stride / puna::kGroup);
    p.x.rows -= first;
    p.y += first * p.y_stride;
    return p;
}

}  // namespace
