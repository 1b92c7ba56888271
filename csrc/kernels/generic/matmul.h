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
inline void prefetch(const uint8_t* p, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += 64) __builtin_prefetch(p + i, 0, 2);
}
// What is needed some time after the `bytes` at p: for loops with so much arithmetic between two loads that
// the processor's own guess comes late.
inline void prefetch_behind(const void* p, int64_t bytes) {
    prefetch(static_cast<const uint8_t*>(p) + 6144, 0, bytes);
}
// Of the `bytes` that are needed when all of `rows` rows are done: the share of n of them.
inline void prefetch_share(const uint8_t* p, int64_t bytes, int64_t row, int64_t n, int64_t rows) {
    prefetch(p, bytes * row / rows / 64 * 64, bytes * (row + n) / rows);
}

}  // namespace

#include "kernels/generic/matmul_float.h"
#include "kernels/generic/matmul_int.h"

namespace {

using Tile = void (*)(const Product&, int64_t tile, int64_t row);

// All rows of x against each tile while its weights are in the nearest cache, kRows at a time.
template <class Kernel, int... R>
void over_tiles(const Product& p, std::integer_sequence<int, R...>) {
    constexpr Tile run[] = {nullptr, Kernel::template run<R + 1>...};
    const int64_t bytes = puna::tile_bytes(p.format, p.columns);
    for (int64_t tile = p.tile_begin; tile < p.tile_end; tile++) {
        for (int64_t row = 0; row < p.x.rows; row += kRows) {
            const int64_t n = least(p.x.rows - row, kRows);
            if (p.x.rows > kRows) prefetch_share(p.weights + (tile + 1) * bytes, bytes, row, n, p.x.rows);
            run[n](p, tile, row);
        }
    }
}
template <class Kernel>
void over_tiles(const Product& p) {
    over_tiles<Kernel>(p, std::make_integer_sequence<int, kRows>());
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
    p.x.half += first * p.x.q_stride;
    p.x.scale += first;
    p.x.zero += first;
    p.x.group_sum += first * (p.x.stride / puna::kGroup);
    p.x.rows -= first;
    p.y += first * p.y_stride;
    return p;
}

}  // namespace
