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

// Scores of H query heads against the 16 keys of a block.
template <CacheType type, int H>
inline void block_scores(const AttentionChunk& a, const uint8_t* block, int64_t head, float* scores) {
    const float* q = a.query + head * a.kv.head_dim;
    F32x16 acc[H];
    for (int h = 0; h < H; h++) acc[h] = set1(0.0f);
    for (int64_t d = 0; d < a.kv.head_dim; d++) {
        const F32x16 key = load_kv<type>(block, d * puna::kBlockTokens);
        for (int h = 0; h < H; h++) acc[h] = fma(set1(q[h * a.kv.head_dim + d]), key, acc[h]);
    }
    for (int h = 0; h < H; h++) store(scores + (head + h) * puna::kChunkTokens, acc[h] * set1(a.scale));
}

// output[head..head+H][16 dims] = sum over positions of weight * value, positions ascending.
template <CacheType type, int H>
inline void weighted_values(const AttentionChunk& a, const float* weights, int64_t head, int64_t dim,
                            float* output) {
    const int64_t size = type == CacheType::f16 ? 2 : 4;
    F32x16 acc[H];
    for (int h = 0; h < H; h++) acc[h] = set1(0.0f);
    for (int64_t t = 0; t < a.tokens; t++) {
        const uint8_t* block = a.base + a.block_ids[t / puna::kBlockTokens] * a.kv.block_stride;
        const int64_t row = t % puna::kBlockTokens * a.kv.padded_head_dim * size;
        const F32x16 value = load_kv<type>(block + a.kv.key_bytes + row, dim);
        for (int h = 0; h < H; h++)
            acc[h] = fma(set1(weights[(head + h) * puna::kChunkTokens + t]), value, acc[h]);
    }
    for (int h = 0; h < H; h++) store(output + (head + h) * a.kv.padded_head_dim + dim, acc[h]);
}

template <CacheType type>
void attend_as(const AttentionChunk& a, const AttentionState& state) {
    alignas(64) float scores[puna::kMaxGroupHeads * puna::kChunkTokens];
    const int64_t blocks = (a.tokens + puna::kBlockTokens - 1) / puna::kBlockTokens;
    for (int64_t b = 0; b < blocks; b++) {
        const uint8_t* block = a.base + a.block_ids[b] * a.kv.block_stride;
        int64_t h = 0;
        for (; h + 4 <= a.heads; h += 4) block_scores<type, 4>(a, block, h, scores + b * 16);
        for (; h < a.heads; h++) block_scores<type, 1>(a, block, h, scores + b * 16);
    }
    for (int64_t h = 0; h < a.heads; h++) {
        float* row = scores + h * puna::kChunkTokens;
        for (int64_t t = a.tokens; t < blocks * 16; t++) row[t] = -__builtin_inff();
        state.largest[h] = largest(row, blocks * 16);
        state.sum[h] = exp_sum(row, blocks * 16, state.largest[h], 1.0f, row);
    }
    for (int64_t dim = 0; dim < a.kv.padded_head_dim; dim += 16) {
        int64_t h = 0;
        for (; h + 4 <= a.heads; h += 4) weighted_values<type, 4>(a, scores, h, dim, state.output);
        for (; h < a.heads; h++) weighted_values<type, 1>(a, scores, h, dim, state.output);
    }
}

void attend(const AttentionChunk& a, const AttentionState& state) {
    a.kv.type == CacheType::f16 ? attend_as<CacheType::f16>(a, state) : attend_as<CacheType::f32>(a, state);
}

void merge_attention(int64_t heads, int64_t padded_head_dim, bool first, const AttentionState& part,
                     const AttentionState& total) {
    for (int64_t h = 0; h < heads; h++) {
        float* out = total.output + h * padded_head_dim;
        const float* in = part.output + h * padded_head_dim;
        if (first) {
            total.largest[h] = part.largest[h];
            total.sum[h] = part.sum[h];
            for (int64_t i = 0; i < padded_head_dim; i += 16) store(out + i, load(in + i));
            continue;
        }
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
