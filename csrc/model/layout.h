// How weights lie in memory: the one place that knows. Everything is in tiles of 16 output rows, so that a
// vector's lanes are 16 outputs and the weights of a tile stream in one direction. Every tile is a multiple
// of 64 bytes and so is every block in it.
//
// Columns are padded to a multiple of 64 and rows to a multiple of 16; padded weights are zero.
//
//   f32             [column][16 rows] float
//   bf16            [column / 2][16 rows][2] bfloat16
//   int8_channel    [column / 4][16 rows][4] unsigned byte = q + 128
//                   then float scale[16], int32 sum of q over the row [16]
//   int8_group32    per 64 columns: 2 groups x [8 runs][16 rows][4 columns] unsigned byte = q + 128,
//                   then 2 x float16 scale[16]; at the end of the tile float sum of dequantized weights[16]
//   int4_group32    per 64 columns: 2 groups x [4 vectors][16 rows][4 columns] byte, low nibble run v, high
//                   nibble run v + 4, nibble = q + 8; then 2 x float16 scale[16]; the sums as above
//   int4_group32_f32   the same with float scales
//
// A run is four neighbouring columns, a group 32, a value q x scale. The sums serve the zero point of the
// activations, see kernels/generic/matmul.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace puna {

constexpr int64_t kTileRows = 16;
constexpr int64_t kColumnBlock = 64;
constexpr int64_t kGroup = 32;

enum class Format : int32_t { f32, bf16, int8_channel, int8_group32, int4_group32, int4_group32_f32 };

struct Int8GroupBlock {
    uint8_t q[2][8][64];
    uint16_t scale[2][16];
};
struct Int4GroupBlock {
    uint8_t q[2][4][64];
    uint16_t scale[2][16];
};
struct Int4WideGroupBlock {
    uint8_t q[2][4][64];
    float scale[2][16];
};
struct ChannelTail {
    float scale[16];
    int32_t row_sum[16];
};
static_assert(sizeof(Int8GroupBlock) == 1088 && sizeof(Int8GroupBlock) % 64 == 0);
static_assert(sizeof(Int4GroupBlock) == 576 && sizeof(Int4GroupBlock) % 64 == 0);
static_assert(sizeof(Int4WideGroupBlock) == 640 && sizeof(Int4WideGroupBlock) % 64 == 0);
static_assert(sizeof(ChannelTail) == 128);

// Bytes of a tile of `columns` columns, a multiple of kColumnBlock. Static: also compiled into the
// instruction-set files.
[[maybe_unused]] static int64_t tile_bytes(Format format, int64_t columns) {
    switch (format) {
        case Format::f32:
            return columns * 64;
        case Format::bf16:
            return columns * 32;
        case Format::int8_channel:
            return columns * 16 + static_cast<int64_t>(sizeof(ChannelTail));
        case Format::int8_group32:
            return columns / kColumnBlock * static_cast<int64_t>(sizeof(Int8GroupBlock)) + 64;
        case Format::int4_group32:
            return columns / kColumnBlock * static_cast<int64_t>(sizeof(Int4GroupBlock)) + 64;
        case Format::int4_group32_f32:
            return columns / kColumnBlock * static_cast<int64_t>(sizeof(Int4WideGroupBlock)) + 64;
    }
    return 0;
}

[[maybe_unused]] static bool is_integer(Format format) {
    return format != Format::f32 && format != Format::bf16;
}

}  // namespace puna
