// Attention over the paged cache, one chunk of at most kChunkTokens positions at a time. Chunks begin at
// multiples of kChunkTokens of the sequence and are merged in order, so that the result does not depend on
// who computes which chunk.
//
// A row of the cache that is loaded serves several queries at once: as many accumulators as the registers
// hold. All loops over accumulators are unrolled in name too: GCC keeps them in memory where one is not.
// While one chunk is read the next is fetched, so that memory is never idle.
#pragma once

namespace {

using puna::AttentionChunk;
using puna::AttentionState;

constexpr int kMostQueries = 6;

// How many vectors of accumulators each of H queries has: with them a vector of the cache and a number of
// each query are in registers.
template <int H>
constexpr int kWidth = 5 * H + 1 <= kVectorRegisters   ? 4
                       : 3 * H + 1 <= kVectorRegisters ? 2
                                                       : 1;

// Where the block with the chunk's position 16 * b lies.
inline const uint8_t* block_at(const AttentionChunk& a, int64_t b) {
    return a.base + a.block_ids[b] * a.kv.block_bytes;
}

// Fetches the chunk that comes next, from its first byte to its last, as fast as this one is read: a
// processor drops what it is asked for faster than memory gives it.
class NextChunk {
  public:
    NextChunk(const AttentionChunk& a, bool is_fetched) : a_(a), blocks_(is_fetched ? a.next_blocks : 0) {
        enter();
    }

    // As many bytes as were read of this chunk.
    void fetch(int64_t bytes) {
        if (block_ == nullptr) return;
        if (at_ % kLine == 0)
            for (int64_t i = 0; i < bytes; i += kLine) __builtin_prefetch(block_ + at_ + i, 0, 2);
        at_ += bytes;
        if (at_ < a_.kv.block_bytes) return;
        at_ = 0;
        n_++;
        enter();
    }

  private:
    static constexpr int64_t kLine = 64;

    void enter() { block_ = n_ < blocks_ ? a_.next_base + a_.next_ids[n_] * a_.kv.block_bytes : nullptr; }

    const AttentionChunk& a_;
    const int64_t blocks_;
    int64_t n_ = 0, at_ = 0;
    const uint8_t* block_;
};

inline int64_t blocks_of(int64_t positions) {
    return (positions + puna::kBlockTokens - 1) / puna::kBlockTokens;
}

// Positions of the chunk that a query sees.
inline int64_t visible(const AttentionChunk& a, int64_t query) {
    const int64_t n = a.reach + query / a.heads;
    return n < puna::kChunkTokens ? n : puna::kChunkTokens;
}

// Sums of query * key over dimensions [begin, end), ascending, of H queries and the 16 keys of each of B
// blocks.
template <CacheType type, int H, int B>
inline void dot_keys(const AttentionChunk& a, const float* query, const uint8_t* const (&blocks)[B],
                     int64_t begin, int64_t end, NextChunk& next, F32x16 (&acc)[H][B]) {
    constexpr int64_t row_bytes = puna::kBlockTokens * kElementBytes<type>;
#pragma GCC unroll 8
    for (int h = 0; h < H; h++)
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) acc[h][b] = set1(0.0f);
    for (int64_t d = begin; d < end; d++) {
        next.fetch(B * row_bytes);
        F32x16 key[B];
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) key[b] = load_kv<type>(blocks[b] + d * row_bytes);
#pragma GCC unroll 8
        for (int h = 0; h < H; h++) {
            const F32x16 q = set1(query[h * a.kv.head_dim + d]);
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) acc[h][b] = fma(q, key[b], acc[h][b]);
        }
    }
}

// Scores of H queries against the 16 keys of each of B blocks; scores [H][kChunkTokens].
template <CacheType type, int H, int B>
inline void block_scores(const AttentionChunk& a, const float* query, int64_t first_block, NextChunk& next,
                         float* scores) {
    const uint8_t* blocks[B];
    for (int b = 0; b < B; b++) blocks[b] = block_at(a, first_block + b);
    F32x16 acc[H][B];
    const auto score = [&](int h, int b) {
        return scores + h * puna::kChunkTokens + (first_block + b) * puna::kBlockTokens;
    };
    if constexpr (type != CacheType::int8) {
        dot_keys<type>(a, query, blocks, 0, a.kv.head_dim, next, acc);
#pragma GCC unroll 8
        for (int h = 0; h < H; h++)
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) store(score(h, b), acc[h][b] * set1(a.scale));
    } else {
        // The sums of the groups meet in memory: the registers are taken.
        next.fetch(B * scale_bytes(a.kv));
        for (int64_t begin = 0, g = 0; begin < a.kv.head_dim; begin += puna::kKeyGroup, g++) {
            const int64_t end =
                begin + puna::kKeyGroup < a.kv.head_dim ? begin + puna::kKeyGroup : a.kv.head_dim;
            dot_keys<type>(a, query, blocks, begin, end, next, acc);
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) {
                const F32x16 scale = key_scales(a.kv, blocks[b], g) * set1(a.scale);
#pragma GCC unroll 8
                for (int h = 0; h < H; h++) {
                    const F32x16 before = g == 0 ? set1(0.0f) : load(score(h, b));
                    store(score(h, b), fma(acc[h][b], scale, before));
                }
            }
        }
    }
}

// output[H][16 * D dims from `dim`] += weight * value over positions [begin, end), ascending.
template <CacheType type, int H, int D>
inline void add_values(const AttentionChunk& a, const float* weights, int64_t begin, int64_t end, int64_t dim,
                       NextChunk& next, float* output) {
    constexpr int64_t size = kElementBytes<type>;
    const int64_t row_bytes = a.kv.padded_head_dim * size;
    F32x16 acc[H][D];
#pragma GCC unroll 8
    for (int h = 0; h < H; h++)
#pragma GCC unroll 8
        for (int d = 0; d < D; d++) acc[h][d] = load(output + h * a.kv.padded_head_dim + dim + 16 * d);
    for (int64_t t = begin; t < end;) {
        const int64_t b = t / puna::kBlockTokens, first = b * puna::kBlockTokens;
        const int64_t stop = first + puna::kBlockTokens < end ? first + puna::kBlockTokens : end;
        const uint8_t* values = block_at(a, b) + a.kv.value_offset + dim * size;
        for (; t < stop; t++) {
            const uint8_t* row = values + (t - first) * row_bytes;
            next.fetch(16 * D * size);
            F32x16 value[D];
#pragma GCC unroll 8
            for (int d = 0; d < D; d++) value[d] = load_kv<type>(row + 16 * d * size);
#pragma GCC unroll 8
            for (int h = 0; h < H; h++) {
                const F32x16 w = set1(weights[h * puna::kChunkTokens + t]);
#pragma GCC unroll 8
                for (int d = 0; d < D; d++) acc[h][d] = fma(w, value[d], acc[h][d]);
            }
        }
    }
#pragma GCC unroll 8
    for (int h = 0; h < H; h++)
#pragma GCC unroll 8
        for (int d = 0; d < D; d++) store(output + h * a.kv.padded_head_dim + dim + 16 * d, acc[h][d]);
}

template <CacheType type, int H>
inline void add_all_values(const AttentionChunk& a, const float* weights, int64_t begin, int64_t end,
                           NextChunk& next, float* output) {
    constexpr int D = kWidth<H>;
    int64_t dim = 0;
    for (; dim + 16 * D <= a.kv.padded_head_dim; dim += 16 * D)
        add_values<type, H, D>(a, weights, begin, end, dim, next, output);
    for (; dim < a.kv.padded_head_dim; dim += 16)
        add_values<type, H, 1>(a, weights, begin, end, dim, next, output);
}

// Queries [first, first + H) of the chunk.
template <CacheType type, int H>
void attend_queries(const AttentionChunk& a, int64_t first, const AttentionState& state) {
    constexpr int B = kWidth<H>;
    alignas(64) float scores[H * puna::kChunkTokens];
    const float* query = a.query + first * a.kv.head_dim;
    NextChunk next(a, first == 0), none(a, false);  // other queries find it in the cache
    const int64_t n_blocks = blocks_of(visible(a, first)), padded = n_blocks * puna::kBlockTokens;
    int64_t b = 0;
    for (; b + B <= n_blocks; b += B) block_scores<type, H, B>(a, query, b, next, scores);
    for (; b < n_blocks; b++) block_scores<type, H, 1>(a, query, b, next, scores);
    for (int64_t h = 0; h < H; h++) {
        float* row = scores + h * puna::kChunkTokens;
        for (int64_t t = visible(a, first + h); t < padded; t++) row[t] = -__builtin_inff();
        state.largest[first + h] = largest(row, padded);
        state.sum[first + h] = exp_sum(row, padded, state.largest[first + h], 1.0f, row);
        if constexpr (type == CacheType::int8)
            for (int64_t i = 0; i < n_blocks; i++) {
                float* weights = row + i * puna::kBlockTokens;
                store(weights, load(weights) * value_scales(a.kv, block_at(a, i)));
            }
    }
    float* output = state.output + first * a.kv.padded_head_dim;
    for (int64_t i = 0; i < H * a.kv.padded_head_dim; i += 16) store(output + i, set1(0.0f));
    // A value that a query does not see may be NaN, and 0 x NaN too: no weight of zero stands for it.
    const int64_t common = visible(a, first);
    add_all_values<type, H>(a, scores, 0, common, next, output);
    for (int64_t h = 0; h < H; h++)
        if (const int64_t end = visible(a, first + h); end > common)
            add_all_values<type, 1>(a, scores + h * puna::kChunkTokens, common, end, none,
                                    output + h * a.kv.padded_head_dim);
}

template <CacheType type, int H>
void attend_some(const AttentionChunk& a, int64_t n, int64_t first, const AttentionState& state) {
    if (n == H) return attend_queries<type, H>(a, first, state);
    if constexpr (H > 1) attend_some<type, H - 1>(a, n, first, state);
}

template <CacheType type>
void attend_as(const AttentionChunk& a, const AttentionState& state) {
    const int64_t n = a.tokens * a.heads, groups = (n + kMostQueries - 1) / kMostQueries;
    for (int64_t g = 0; g < groups; g++)
        attend_some<type, kMostQueries>(a, n * (g + 1) / groups - n * g / groups, n * g / groups, state);
}

void attend(const AttentionChunk& a, const AttentionState& state) {
    switch (a.kv.type) {
        case CacheType::f32:
            return attend_as<CacheType::f32>(a, state);
        case CacheType::f16:
            return attend_as<CacheType::f16>(a, state);
        case CacheType::int8:
            return attend_as<CacheType::int8>(a, state);
    }
}

void merge_attention(int64_t queries, int64_t padded_head_dim, const AttentionState& part,
                     const AttentionState& total) {
    for (int64_t h = 0; h < queries; h++) {
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
