// Attention over the paged cache, one chunk of at most kChunkTokens positions at a time. Chunks begin at
// multiples of kChunkTokens of the sequence and are merged in order, so that the result does not depend on
// who computes which chunk.
#pragma once

namespace {

using puna::AttentionChunk;
using puna::AttentionState;
using puna::CacheType;
using puna::KvLayout;

template <CacheType type>
inline F32x16 load_kv(const uint8_t* p, int64_t i) {
    if constexpr (type == CacheType::f16)
        return load_f16(reinterpret_cast<const uint16_t*>(p) + i);
    else
        return load(reinterpret_cast<const float*>(p) + i);
}

// Beyond the range of float16 a value is held at its end, NaN stays NaN.
inline void store_16(CacheType type, void* p, F32x16 v) {
    if (type == CacheType::f32) return store(static_cast<float*>(p), v);
    store_f16(static_cast<uint16_t*>(p), min(set1(65504.0f), max(set1(-65504.0f), v)));
}

void store_kv(const KvLayout& kv, uint8_t* block, int64_t position, const float* key, const float* value) {
    const int64_t size = kv.type == CacheType::f16 ? 2 : 4;
    uint8_t* values = block + kv.key_bytes + position * kv.padded_head_dim * size;
    for (int64_t i = 0; i < kv.head_dim; i += 16) {
        const int64_t n = kv.head_dim - i < 16 ? kv.head_dim - i : 16;
        alignas(64) uint8_t lanes[64];
        store_16(kv.type, lanes, load_some(key + i, n, 0.0f));
        for (int64_t d = 0; d < n; d++)
            __builtin_memcpy(block + ((i + d) * puna::kBlockTokens + position) * size, lanes + d * size,
                             static_cast<size_t>(size));
        store_16(kv.type, values + i * size, load_some(value + i, n, 0.0f));
    }
}

// Where the block with the chunk's position 16 * b lies.
inline const uint8_t* block_at(const AttentionChunk& a, int64_t b) {
    return a.base + a.block_ids[b] * a.kv.block_stride;
}

// Scores of H query heads against the 16 keys of each of B blocks.
template <CacheType type, int H, int B>
inline void block_scores(const AttentionChunk& a, int64_t head, int64_t first_block, float* scores) {
    const float* q = a.query + head * a.kv.head_dim;
    const uint8_t* blocks[B];
    F32x16 acc[H][B];
    for (int b = 0; b < B; b++) {
        blocks[b] = block_at(a, first_block + b);
        for (int h = 0; h < H; h++) acc[h][b] = set1(0.0f);
    }
    for (int64_t d = 0; d < a.kv.head_dim; d++) {
        F32x16 key[B];
        for (int b = 0; b < B; b++) key[b] = load_kv<type>(blocks[b], d * puna::kBlockTokens);
        for (int h = 0; h < H; h++) {
            const F32x16 query = set1(q[h * a.kv.head_dim + d]);
            for (int b = 0; b < B; b++) acc[h][b] = fma(query, key[b], acc[h][b]);
        }
    }
    for (int h = 0; h < H; h++)
        for (int b = 0; b < B; b++)
            store(scores + (head + h) * puna::kChunkTokens + (first_block + b) * puna::kBlockTokens,
                  acc[h][b] * set1(a.scale));
}

// output[head..head+H][16 * D dims] = sum over positions of weight * value, positions ascending.
template <CacheType type, int H, int D>
inline void weighted_values(const AttentionChunk& a, const float* weights, int64_t head, int64_t dim,
                            float* output) {
    const int64_t row_bytes = a.kv.padded_head_dim * (type == CacheType::f16 ? 2 : 4);
    F32x16 acc[H][D];
    for (int h = 0; h < H; h++)
        for (int d = 0; d < D; d++) acc[h][d] = set1(0.0f);
    for (int64_t t = 0; t < a.tokens; t++) {
        const uint8_t* row =
            block_at(a, t / puna::kBlockTokens) + a.kv.key_bytes + t % puna::kBlockTokens * row_bytes;
        F32x16 value[D];
        for (int d = 0; d < D; d++) value[d] = load_kv<type>(row, dim + 16 * d);
        for (int h = 0; h < H; h++) {
            const F32x16 weight = set1(weights[(head + h) * puna::kChunkTokens + t]);
            for (int d = 0; d < D; d++) acc[h][d] = fma(weight, value[d], acc[h][d]);
        }
    }
    for (int h = 0; h < H; h++)
        for (int d = 0; d < D; d++)
            store(output + (head + h) * a.kv.padded_head_dim + dim + 16 * d, acc[h][d]);
}

// Both for H heads from `head` on, two blocks or two vectors at once while there are two.
template <CacheType type, int H>
inline void scores_of_heads(const AttentionChunk& a, int64_t head, int64_t n_blocks, float* scores) {
    int64_t b = 0;
    for (; b + 2 <= n_blocks; b += 2) block_scores<type, H, 2>(a, head, b, scores);
    if (b < n_blocks) block_scores<type, H, 1>(a, head, b, scores);
}
template <CacheType type, int H>
inline void values_of_heads(const AttentionChunk& a, int64_t head, const float* weights, float* output) {
    int64_t dim = 0;
    for (; dim + 32 <= a.kv.padded_head_dim; dim += 32)
        weighted_values<type, H, 2>(a, weights, head, dim, output);
    if (dim < a.kv.padded_head_dim) weighted_values<type, H, 1>(a, weights, head, dim, output);
}

template <CacheType type>
void attend_as(const AttentionChunk& a, const AttentionState& state) {
    alignas(64) float scores[puna::kMaxGroupHeads * puna::kChunkTokens];
    const int64_t n_blocks = (a.tokens + puna::kBlockTokens - 1) / puna::kBlockTokens;
    int64_t head = 0;
    for (; head + 4 <= a.heads; head += 4) scores_of_heads<type, 4>(a, head, n_blocks, scores);
    for (; head < a.heads; head++) scores_of_heads<type, 1>(a, head, n_blocks, scores);
    for (int64_t h = 0; h < a.heads; h++) {
        float* row = scores + h * puna::kChunkTokens;
        for (int64_t t = a.tokens; t < n_blocks * 16; t++) row[t] = -__builtin_inff();
        state.largest[h] = largest(row, n_blocks * 16);
        state.sum[h] = exp_sum(row, n_blocks * 16, state.largest[h], 1.0f, row);
    }
    for (head = 0; head + 4 <= a.heads; head += 4) values_of_heads<type, 4>(a, head, scores, state.output);
    for (; head < a.heads; head++) values_of_heads<type, 1>(a, head, scores, state.output);
}

void attend(const AttentionChunk& a, const AttentionState& state) {
    a.kv.type == CacheType::f16 ? attend_as<CacheType::f16>(a, state) : attend_as<CacheType::f32>(a, state);
}

void merge_attention(int64_t heads, int64_t padded_head_dim, const AttentionState& part,
                     const AttentionState& total) {
    for (int64_t h = 0; h < heads; h++) {
        float* out = total.output + h * padded_head_dim;
        const float* in = part.output + h * padded_head_dim;
        // Scores with a NaN give a NaN sum, and that is what must come through.
        const float top = part.largest[h] > total.largest[h] ? part.largest[h] : total.largest[h];
        const F32x16 old_weight = exp(set1(total.largest[h] - top)),
                     new_weight = exp(set1(part.largest[h] - top));
        float sum[16];
        store(sum, fma(set1(total.sum[h]), old_weight, set1(part.sum[h]) * new_weight));
        total.largest[h] = top;
        total.sum[h] = sum[0];
        for (int64_t i = 0; i < padded_head_dim; i += 16)
            store(out + i, fma(load(out + i), old_weight, load(in + i) * new_weight));
    }
}

}  // namespace
