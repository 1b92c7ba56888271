// A row of a packed matrix back to floats.
#pragma once

namespace {

// A weight of a block of 4-bit groups without its scale.
template <class Block>
inline int nibble_of(const Block& block, int64_t k, int64_t lane) {
    const int64_t run = k % 32 / 4;
    const uint8_t byte = block.q[k / 32 % 2][run % 4][4 * lane + k % 4];
    return (run < 4 ? byte & 15 : byte >> 4) - 8;
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
                out[k] =
                    static_cast<float>(nibble_of(block, k, lane)) * puna::f16_to_f32(block.scale[g][lane]);
                break;
            }
            case Format::int4_group32_f32: {
                const auto& block = reinterpret_cast<const puna::Int4WideGroupBlock*>(tile)[k / 64];
                out[k] = static_cast<float>(nibble_of(block, k, lane)) * block.scale[g][lane];
                break;
            }
        }
    }
}

}  // namespace
