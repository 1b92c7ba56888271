// The kernels that an instruction set provides: plain functions on plain data. They neither throw nor
// allocate; sizes have been checked by the caller.
//
// Numeric contract: every function gives the same bits in every table, for any split of the work into calls.
// Integer dot products are exact; float sums run in one written order with fused multiply-add where `fma`
// is written.
#pragma once

#include <cstdint>

#include "model/layout.h"

namespace puna {

// Rows of activations for a matrix product. K is the padded number of columns.
struct Activations {
    const float* values;       // [rows][stride], zero beyond the true columns
    const int8_t* q;           // [rows][q_stride], zero beyond the true columns
    const int16_t* wide;       // [rows][q_stride] what `widen_row` makes of q, for tables that have it
    const float* scale;        // [rows]
    const int32_t* zero;       // [rows] zero point: value = (q - zero) * scale
    const int32_t* group_sum;  // [rows][stride / 32] sum of q over each group
    const uint16_t* half;      // [rows][q_stride] bfloat16, zero beyond the true columns
    int64_t stride;            // a multiple of kColumnBlock
    int64_t q_stride;
    int64_t rows;
};

// Tiles [tile_begin, tile_end) of `weights` times all rows of x: y[row][16 * tile + lane].
struct Product {
    Format format;
    const uint8_t* weights;
    int64_t columns;  // padded
    int64_t tile_begin, tile_end;
    Activations x;
    float* y;
    int64_t y_stride;
};

// A block of the cache holds kBlockTokens positions of one layer and one head:
//
//   f32, f16   keys [head_dim][position], to whole lines of 64 bytes; values [position][padded head_dim]
//   int8       the same, each with float scales behind it: for the keys [group][position], one for every
//              kKeyGroup dimensions, for the values [position]
//
// head_dim is padded to a multiple of 16 for values. An int8 number means q x scale, -127 <= q <= 127.
constexpr int64_t kBlockTokens = 16;
constexpr int64_t kChunkTokens = 256;  // attention is summed chunk by chunk, whoever computes them
constexpr int64_t kChunkBlocks = kChunkTokens / kBlockTokens;

enum class CacheType : int32_t { f32, f16, int8 };
constexpr int64_t kKeyGroup = 32;

struct KvLayout {
    CacheType type;
    int64_t head_dim, padded_head_dim;
    int64_t value_offset, block_bytes;             // values lie behind the keys
    int64_t key_scale_offset, value_scale_offset;  // of int8
};

// One chunk of attention: the query heads that share a key head, of tokens that follow one another in one
// block of positions.
struct AttentionChunk {
    KvLayout kv;
    const uint8_t* base;       // blocks of this layer and head
    const int32_t* block_ids;  // of the chunk, first block first
    const uint8_t* next_base;  // the chunk that comes next, fetched meanwhile
    const int32_t* next_ids;
    int64_t next_blocks;  // of that chunk, 0 where there is none
    const float* query;   // [tokens][heads][head_dim]
    int64_t tokens, heads;
    int64_t reach;  // token i sees the first min(reach + i, kChunkTokens) positions of the chunk
    float scale;
};

// Running state of queries [tokens][heads]: the softmax's largest score, its sum, and the weighted values.
struct AttentionState {
    float* largest;  // [queries]
    float* sum;      // [queries]
    float* output;   // [queries][padded head_dim]
};

struct KernelTable {
    const char* name;
    void (*matmul)(const Product&);
    // Asymmetric int8 a row: q, scale, zero point and group sums. `columns` padded.
    void (*quantize_row)(const float* x, int64_t columns, int8_t* q, float* scale, int32_t* zero,
                         int32_t* group_sum);
    // Where int8 weights meet 16-bit activations, else null: of each group of 32 columns the even ones, then
    // the odd ones. `columns` padded.
    void (*widen_row)(const int8_t* q, int64_t columns, int16_t* wide);
    // To bfloat16, nearest even. `columns` padded.
    void (*round_row)(const float* x, int64_t columns, uint16_t* half);
    // x += delta (where given), then out = x / rms(x) * gain. `dim` elements; buffers padded to 16.
    void (*add_rms_norm)(float* x, const float* delta, const float* gain, float eps, int64_t dim, float* out);
    // Rotates `heads` heads in place, half-split order. cosine, sine [head_dim / 2]
    void (*rope)(float* x, int64_t heads, int64_t head_dim, const float* cosine, const float* sine);
    void (*store_kv)(const KvLayout&, uint8_t* block, int64_t position, const float* key, const float* value);
    void (*attend)(const AttentionChunk&, const AttentionState&);
    // total = total merged with part.
    void (*merge_attention)(int64_t queries, int64_t padded_head_dim, const AttentionState& part,
                            const AttentionState& total);
    void (*silu_mul)(float* gate, const float* up, int64_t n);  // n a multiple of 16
    // Each `block` neighbouring values times the Hadamard matrix in natural (Sylvester's) order, divided by
    // sqrt(block), in place. `block` is a power of two, n a multiple of it and of 16.
    void (*rotate_blocks)(float* x, int64_t n, int64_t block);
    void (*add_scaled)(float* y, const float* x, float factor, int64_t n);  // y += factor * x, n as above
    float (*largest)(const float* x, int64_t n);
    // out = exp((x - shift) * factor); the sum is returned.
    float (*exp_sum)(const float* x, int64_t n, float shift, float factor, float* out);
    // One row of a packed matrix as floats, `columns` padded values.
    void (*unpack_row)(Format format, const uint8_t* weights, int64_t columns, int64_t row, float* out);
    // For rooflines: reads n bytes, a multiple of 256, and asks for each `ahead` bytes before its turn.
    float (*read_through)(const uint8_t* data, int64_t n, int64_t ahead);
    // For rooflines: n times 64 x 64 integer products, n at most 65536.
    float (*multiply_bytes)(int64_t n);
};

}  // namespace puna
