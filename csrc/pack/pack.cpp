#include "pack/pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "base/check.h"
#include "base/half.h"
#include "kernels/dispatch.h"

namespace puna {

namespace {

Weight shape_of(Format format, int64_t rows, int64_t columns) {
    Weight weight;
    weight.format = format;
    weight.rows = rows;
    weight.columns = columns;
    return weight;
}

// Calls put(tile bytes, lane, row, column) for every true element.
template <class Put>
void each_element(const Weight& w, uint8_t* out, Put put) {
    const int64_t bytes = tile_bytes(w.format, w.padded_columns());
    for (int64_t row = 0; row < w.rows; row++)
        for (int64_t k = 0; k < w.columns; k++) put(out + row / kTileRows * bytes, row % kTileRows, row, k);
}

void check_nibble(int8_t q) {
    PUNA_CHECK(q >= -8 && q <= 7, "int4 weights must be -8 to 7, got " + std::to_string(int{q}));
}

void place(Int8GroupBlock& block, int64_t g, int64_t i, int64_t lane, int8_t q) {
    block.q[g][i / 4][4 * lane + i % 4] = static_cast<uint8_t>(q + 128);
}
template <class Int4Block>
void place(Int4Block& block, int64_t g, int64_t i, int64_t lane, int8_t q) {
    check_nibble(q);
    const int64_t run = i / 4;
    uint8_t& byte = block.q[g][run % 4][4 * lane + i % 4];
    const auto nibble = static_cast<uint8_t>(q + 8);
    byte = static_cast<uint8_t>(run < 4 ? (byte & 0xf0) | nibble : (byte & 0x0f) | nibble << 4);
}

int8_t taken(const Int8GroupBlock& block, int64_t g, int64_t i, int64_t lane) {
    return static_cast<int8_t>(block.q[g][i / 4][4 * lane + i % 4] - 128);
}
template <class Int4Block>
int8_t taken(const Int4Block& block, int64_t g, int64_t i, int64_t lane) {
    const int64_t run = i / 4;
    const uint8_t byte = block.q[g][run % 4][4 * lane + i % 4];
    return static_cast<int8_t>((run < 4 ? byte & 0x0f : byte >> 4) - 8);
}

// Of a format's blocks: float16 bits or float.
template <class Block>
using ScaleOf = std::remove_all_extents_t<decltype(Block::scale)>;
float value_of(uint16_t scale) { return f16_to_f32(scale); }
float value_of(float scale) { return scale; }

template <class Block>
void unpack_group_blocks(const Weight& w, int8_t* q, ScaleOf<Block>* scale) {
    const int64_t bytes = tile_bytes(w.format, w.padded_columns()), groups = (w.columns + 31) / 32;
    for (int64_t row = 0; row < w.rows; row++) {
        const auto* blocks = reinterpret_cast<const Block*>(w.data + row / kTileRows * bytes);
        const int64_t lane = row % kTileRows;
        for (int64_t g = 0; g < groups; g++) scale[row * groups + g] = blocks[g / 2].scale[g % 2][lane];
        for (int64_t k = 0; k < w.columns; k++)
            q[row * w.columns + k] = taken(blocks[k / 64], k / kGroup % 2, k % kGroup, lane);
    }
}

template <class Block>
void pack_group_blocks(const Weight& w, const int8_t* q, const ScaleOf<Block>* scale, uint8_t zero,
                       uint8_t* out) {
    const int64_t bytes = tile_bytes(w.format, w.padded_columns()), groups = (w.columns + 31) / 32;
    const int64_t n_blocks = w.padded_columns() / kColumnBlock;
    for (int64_t tile = 0; tile < w.tiles(); tile++) {
        auto* blocks = reinterpret_cast<Block*>(out + tile * bytes);
        for (int64_t b = 0; b < n_blocks; b++) {
            std::memset(blocks[b].q, zero, sizeof blocks[b].q);
            std::memset(blocks[b].scale, 0, sizeof blocks[b].scale);
        }
        auto* sums = reinterpret_cast<float*>(blocks + n_blocks);
        for (int64_t lane = 0; lane < kTileRows; lane++) {
            const int64_t row = tile * kTileRows + lane;
            double sum = 0;
            for (int64_t k = 0; row < w.rows && k < w.columns; k++) {
                const int64_t group = k / kGroup;
                const ScaleOf<Block> s = scale[row * groups + group];
                place(blocks[k / 64], group % 2, k % kGroup, lane, q[row * w.columns + k]);
                blocks[k / 64].scale[group % 2][lane] = s;
                sum += static_cast<double>(value_of(s)) * q[row * w.columns + k];
            }
            sums[lane] = static_cast<float>(sum);
        }
    }
}

// A grid of whole steps of `scale` from low to high.
struct Grid {
    float scale, low, high;

    float inverse() const { return scale > 0 ? 1.0f / scale : 0.0f; }
    // Adding and taking away 1.5 x 2^23 rounds to the nearest even, and compilers can do it in vectors.
    float nearest(float value, float by) const {
        const float steps = (value * by + 12582912.0f) - 12582912.0f;
        return std::min(std::max(steps, low), high);
    }
};

// Squared error of n values rounded to the grid, in eight partial sums.
float squared_error(const Grid& grid, const float* v, int64_t n) {
    const float by = grid.inverse();
    float sums[8] = {};
    for (int64_t i = 0; i + 8 <= n; i += 8)
        for (int64_t j = 0; j < 8; j++) {
            const float d = v[i + j] - grid.nearest(v[i + j], by) * grid.scale;
            sums[j] += d * d;
        }
    for (int64_t i = n / 8 * 8; i < n; i++) {
        const float d = v[i] - grid.nearest(v[i], by) * grid.scale;
        sums[i % 8] += d * d;
    }
    float total = 0;
    for (const float sum : sums) total += sum;
    return total;
}

void round_to(const Grid& grid, const float* v, int64_t n, int8_t* q) {
    const float by = grid.inverse();
    for (int64_t i = 0; i < n; i++) q[i] = static_cast<int8_t>(grid.nearest(v[i], by));
}

float largest_magnitude(const float* v, int64_t n) {
    float top = 0;
    for (int64_t i = 0; i < n; i++) {
        PUNA_CHECK(std::isfinite(v[i]), "cannot quantize a weight that is not finite");
        top = std::max(top, std::fabs(v[i]));
    }
    return top;
}

}  // namespace

void pack_f32(const float* values, int64_t rows, int64_t columns, uint8_t* out) {
    const Weight w = shape_of(Format::f32, rows, columns);
    std::memset(out, 0, static_cast<size_t>(w.bytes()));
    each_element(w, out, [&](uint8_t* tile, int64_t lane, int64_t row, int64_t k) {
        reinterpret_cast<float*>(tile)[16 * k + lane] = values[row * columns + k];
    });
}

void pack_bf16(const float* values, int64_t rows, int64_t columns, uint8_t* out) {
    const Weight w = shape_of(Format::bf16, rows, columns);
    std::memset(out, 0, static_cast<size_t>(w.bytes()));
    each_element(w, out, [&](uint8_t* tile, int64_t lane, int64_t row, int64_t k) {
        reinterpret_cast<uint16_t*>(tile)[k / 2 * 32 + 2 * lane + k % 2] =
            f32_to_bf16(values[row * columns + k]);
    });
}

void pack_int8_channel(const int8_t* q, const float* scale, int64_t rows, int64_t columns, uint8_t* out) {
    const Weight w = shape_of(Format::int8_channel, rows, columns);
    const int64_t bytes = tile_bytes(w.format, w.padded_columns());
    const auto tail = [&](int64_t tile) {
        return reinterpret_cast<ChannelTail*>(out + tile * bytes + 16 * w.padded_columns());
    };
    for (int64_t tile = 0; tile < w.tiles(); tile++) {
        std::memset(out + tile * bytes, 128, static_cast<size_t>(16 * w.padded_columns()));
        std::memset(tail(tile), 0, sizeof(ChannelTail));
    }
    for (int64_t row = 0; row < rows; row++) tail(row / 16)->scale[row % 16] = scale[row];
    each_element(w, out, [&](uint8_t* tile, int64_t lane, int64_t row, int64_t k) {
        const int8_t value = q[row * columns + k];
        tile[k / 4 * 64 + 4 * lane + k % 4] = static_cast<uint8_t>(value + 128);
        tail(row / 16)->row_sum[lane] += value;
    });
}

void pack_groups(Format format, const int8_t* q, const uint16_t* scale, int64_t rows, int64_t columns,
                 uint8_t* out) {
    const Weight w = shape_of(format, rows, columns);
    if (format == Format::int8_group32) return pack_group_blocks<Int8GroupBlock>(w, q, scale, 128, out);
    PUNA_CHECK(format == Format::int4_group32,
               std::string("pack_groups: needs int4_group32 or int8_group32, got ") + format_name(format));
    pack_group_blocks<Int4GroupBlock>(w, q, scale, 0x88, out);
}

void pack_groups_f32(const int8_t* q, const float* scale, int64_t rows, int64_t columns, uint8_t* out) {
    pack_group_blocks<Int4WideGroupBlock>(shape_of(Format::int4_group32_f32, rows, columns), q, scale, 0x88,
                                          out);
}

void unpack(const Weight& weight, float* out) {
    std::vector<float> row(static_cast<size_t>(weight.padded_columns()));
    for (int64_t i = 0; i < weight.rows; i++) {
        kernels().unpack_row(weight.format, weight.data, weight.padded_columns(), i, row.data());
        std::copy_n(row.data(), weight.columns, out + i * weight.columns);
    }
}

void unpack_int8_channel(const Weight& weight, int8_t* q, float* scale) {
    PUNA_CHECK(weight.format == Format::int8_channel,
               std::string("unpack_channels: needs int8_channel, got ") + format_name(weight.format));
    const int64_t columns = weight.padded_columns(), bytes = tile_bytes(weight.format, columns);
    for (int64_t row = 0; row < weight.rows; row++) {
        const uint8_t* tile = weight.data + row / kTileRows * bytes;
        const int64_t lane = row % kTileRows;
        scale[row] = reinterpret_cast<const ChannelTail*>(tile + 16 * columns)->scale[lane];
        for (int64_t k = 0; k < weight.columns; k++)
            q[row * weight.columns + k] = static_cast<int8_t>(tile[k / 4 * 64 + 4 * lane + k % 4] - 128);
    }
}

void unpack_groups(const Weight& weight, int8_t* q, uint16_t* scale) {
    if (weight.format == Format::int8_group32) return unpack_group_blocks<Int8GroupBlock>(weight, q, scale);
    PUNA_CHECK(
        weight.format == Format::int4_group32,
        std::string("unpack_groups: needs int4_group32 or int8_group32, got ") + format_name(weight.format));
    unpack_group_blocks<Int4GroupBlock>(weight, q, scale);
}

void unpack_groups_f32(const Weight& weight, int8_t* q, float* scale) {
    PUNA_CHECK(weight.format == Format::int4_group32_f32,
               std::string("unpack_groups_f32: needs int4_group32_f32, got ") + format_name(weight.format));
    unpack_group_blocks<Int4WideGroupBlock>(weight, q, scale);
}

void round_groups(int bits, const float* values, int64_t rows, int64_t columns, int8_t* q, uint16_t* scale) {
    PUNA_CHECK(bits == 4 || bits == 8, "round_groups: bits must be 4 or 8, got " + std::to_string(bits));
    // At 4 bits clipping the largest value a little often pays; at 8 it never does by much.
    const int n_tries = bits == 4 ? 20 : 1;
    const int64_t groups = (columns + 31) / 32;
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t g = 0; g < groups; g++) {
            const float* v = values + row * columns + g * kGroup;
            const int64_t n = std::min(kGroup, columns - g * kGroup);
            const float top = largest_magnitude(v, n);
            Grid best{0, bits == 4 ? -8.0f : -127.0f, bits == 4 ? 7.0f : 127.0f};
            float least = INFINITY;
            for (int i = 0; i < n_tries; i++) {
                // Divisors from 7 (nothing clipped) to 11.75, and their neighbours on the float16 grid.
                const float divisor = bits == 4 ? 7.0f + 0.25f * static_cast<float>(i) : 127.0f;
                const uint16_t half = f32_to_f16(top / divisor);
                PUNA_CHECK(half < 0x7c00u, "cannot quantize: a group's largest weight is " +
                                               std::to_string(top) + ", beyond the range of its scale");
                const Grid grid{f16_to_f32(half), best.low, best.high};
                const float error = squared_error(grid, v, n);
                if (error >= least) continue;
                least = error;
                best = grid;
                scale[row * groups + g] = half;
            }
            round_to(best, v, n, q + row * columns + g * kGroup);
        }
    }
}

void round_channels(const float* values, int64_t rows, int64_t columns, int8_t* q, float* scale) {
    for (int64_t row = 0; row < rows; row++) {
        const float* v = values + row * columns;
        const float largest = largest_magnitude(v, columns) / 127.0f;
        // One over what is smaller may be infinite.
        scale[row] = largest < std::numeric_limits<float>::min() ? 0.0f : largest;
        round_to({scale[row], -127.0f, 127.0f}, v, columns, q + row * columns);
    }
}

}  // namespace puna
