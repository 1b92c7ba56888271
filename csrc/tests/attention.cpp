// Attention against float64: the kernels of every table on buffers of exactly the promised size, and whole
// steps over block and chunk edges, threads and cuts.
#include "model/attention.h"

#include <algorithm>

#include "kernels/dispatch.h"
#include "tests/check.h"
#include "tests/guarded.h"
#include "tests/history.h"

namespace puna::test {

namespace {

constexpr CacheType kTypes[] = {CacheType::f32, CacheType::f16, CacheType::int8};

// Outputs [tokens][heads][head_dim] of queries the last of which sees all positions.
void check_output(const History& stored, const History& history, const KvLayout& layout,
                  const std::vector<float>& query, const std::vector<float>& found, int64_t heads) {
    const int64_t head_dim = layout.head_dim, queries = static_cast<int64_t>(query.size()) / head_dim;
    const auto length = static_cast<int64_t>(history.keys.size()) / head_dim;
    const bool is_damaged = std::isnan(history.keys.back());
    if (!is_damaged) REQUIRE(is_nearest(layout.type, stored.keys, history.keys, head_dim, kKeyGroup));
    REQUIRE(is_nearest(layout.type, stored.values, history.values, head_dim, head_dim));
    for (int64_t q = 0; q < queries; q++) {
        const auto at = static_cast<size_t>(q * head_dim);
        const int64_t seen = length + 1 - queries / heads + q / heads;
        if (is_damaged && seen == length)
            REQUIRE(std::isnan(found[at]));
        else
            REQUIRE(is_close(&found[at], exact(stored, &query[at], head_dim, seen)));
    }
}

// A chunk: `tokens` queries, the last of which sees `length` positions, over blocks in reverse order. Where
// it is `damaged` the last key is NaN.
void check_chunk(CacheType type, int64_t head_dim, int64_t heads, int64_t tokens, int64_t length,
                 bool damaged = false) {
    const KvLayout layout = kv_layout(type, head_dim);
    History history = random_history(length, head_dim, static_cast<uint32_t>(length));
    if (damaged) history.keys.back() = std::nanf("");
    const auto numbers = random_floats(tokens * heads * head_dim, 5);
    const int64_t n_blocks = (length + kBlockTokens - 1) / kBlockTokens, queries = tokens * heads;
    std::vector<float> expected;
    std::vector<uint8_t> stored;
    for (const char* isa : runnable_isas()) {
        const KernelTable& table = find_kernels(isa);
        Guarded<uint8_t> blocks(n_blocks * layout.block_bytes, 0);
        fill_with_nan(blocks.data(), n_blocks * layout.block_bytes);
        Guarded<int32_t> ids(n_blocks);
        for (int64_t b = 0; b < n_blocks; b++) ids[b] = static_cast<int32_t>(n_blocks - 1 - b);
        Guarded<float> query(queries * head_dim), key(head_dim), value(head_dim), state(2 * queries),
            output(queries * layout.padded_head_dim);
        std::copy(numbers.begin(), numbers.end(), query.begin());
        for (int64_t t = 0; t < length; t++) {
            std::copy_n(history.keys.begin() + t * head_dim, head_dim, key.begin());
            std::copy_n(history.values.begin() + t * head_dim, head_dim, value.begin());
            table.store_kv(layout, blocks.data() + ids[t / kBlockTokens] * layout.block_bytes,
                           t % kBlockTokens, key.data(), value.data());
        }
        AttentionChunk chunk{};
        chunk.kv = layout;
        chunk.base = chunk.next_base = blocks.data();
        chunk.block_ids = chunk.next_ids = ids.data();
        chunk.next_blocks = n_blocks;
        chunk.query = query.data();
        chunk.tokens = tokens;
        chunk.heads = heads;
        chunk.reach = length + 1 - tokens;
        chunk.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)));
        table.attend(chunk, {state.data(), state.data() + queries, output.data()});
        REQUIRE(blocks.is_intact() && ids.is_intact() && query.is_intact() && key.is_intact() &&
                value.is_intact() && state.is_intact() && output.is_intact());
        std::vector<float> found(static_cast<size_t>(queries * head_dim));
        for (int64_t q = 0; q < queries; q++)
            for (int64_t d = 0; d < head_dim; d++)
                found[static_cast<size_t>(q * head_dim + d)] =
                    output[q * layout.padded_head_dim + d] / state[queries + q];
        if (expected.empty()) {
            expected = found;
            stored.assign(blocks.begin(), blocks.end());
            check_output(read_back(layout, blocks.data(), ids.data(), length), history, layout, numbers,
                         expected, heads);
        }
        REQUIRE(same_bits(found, expected));
        REQUIRE(std::equal(stored.begin(), stored.end(), blocks.begin()));
    }
}

// Two sequences of `length` positions in one cache, their blocks interleaved, and queries at every position.
struct Scene {
    Scene(CacheType type, int64_t head_dim, int64_t group, int64_t n)
        : config{64, 1, 2 * group, 2, head_dim, 64, 10, 1024, 1e-5f, {}},
          length(n),
          n_blocks((n + kBlockTokens - 1) / kBlockTokens),
          cache(config, 2 * n_blocks, type),
          query(config.q_dim()) {
        query.reserve(2 * n);
        for (int64_t i = 0; i < 2 * n; i++) {
            const auto numbers = random_floats(config.q_dim(), static_cast<uint32_t>(i));
            std::copy(numbers.begin(), numbers.end(), query.row(i));
        }
        for (int64_t s = 0; s < 2; s++) {
            for (int64_t b = 0; b < n_blocks; b++)
                blocks[s].push_back(static_cast<int32_t>(2 * (n_blocks - 1 - b) + s));
            for (int64_t h = 0; h < 2; h++) {
                const History history = random_history(n, head_dim, static_cast<uint32_t>(4 * s + 2 * h));
                const KvLayout& layout = cache.layout();
                const auto block = [&](int64_t b) {
                    return cache.base(0, h) + blocks[s][static_cast<size_t>(b)] * layout.block_bytes;
                };
                for (int64_t b = 0; b < n_blocks; b++) fill_with_nan(block(b), layout.block_bytes);
                for (int64_t t = 0; t < n; t++)
                    kernels().store_kv(layout, block(t / kBlockTokens), t % kBlockTokens,
                                       &history.keys[static_cast<size_t>(t * head_dim)],
                                       &history.values[static_cast<size_t>(t * head_dim)]);
                histories.push_back(read_back(layout, cache.base(0, h), blocks[s].data(), n));
            }
        }
    }

    // Rows of `out`: the first sequence's positions, then the second's, as `query`; `steps` positions at
    // once.
    std::vector<float> run(const KernelTable& table, int n_threads, int64_t step) {
        ThreadPool pool(n_threads);
        Attention attention(config, cache, n_threads);
        std::vector<float> all(static_cast<size_t>(2 * length * config.q_dim()));
        for (int64_t start = 0; start < length; start += step) {
            const int64_t n = std::min(step, length - start);
            Batch batch;
            batch.tokens.assign(static_cast<size_t>(2 * n), 0);
            Rows in(config.q_dim()), out(config.q_dim());
            in.reserve(2 * n);
            out.reserve(2 * n);
            for (int64_t s = 0; s < 2; s++) {
                batch.slices.push_back({n, start, blocks[s].data(), n_blocks});
                for (int64_t i = 0; i < n; i++)
                    std::copy_n(query.row(s * length + start + i), config.q_dim(), in.row(s * n + i));
            }
            attention.plan(batch.slices);
            pool.run([&](Worker& worker) { attention.run(worker, table, 0, in, out); });
            for (int64_t i = 0; i < 2 * n; i++)
                std::copy_n(out.row(i), config.q_dim(),
                            all.begin() + ((i / n) * length + start + i % n) * config.q_dim());
        }
        return all;
    }

    void check() {
        const auto expected = run(find_kernels("scalar"), 1, length);
        for (int64_t i = 0; i < 2 * length; i++)
            for (int64_t h = 0; h < config.n_heads; h++)
                REQUIRE(is_close(&expected[static_cast<size_t>(i * config.q_dim() + h * config.head_dim)],
                                 exact(histories[static_cast<size_t>(
                                           i / length * 2 + h / (config.n_heads / config.n_kv_heads))],
                                       query.row(i) + h * config.head_dim, config.head_dim, i % length + 1)));
        for (const char* isa : runnable_isas())
            for (const int n_threads : {1, 2, 3, 7})
                REQUIRE(same_bits(run(find_kernels(isa), n_threads, length), expected));
        for (const int n_threads : {1, 5}) REQUIRE(same_bits(run(kernels(), n_threads, 1), expected));
        REQUIRE(same_bits(run(kernels(), 4, 100), expected));
    }

    ModelConfig config;
    int64_t length, n_blocks;
    Cache cache;
    Rows query;
    std::vector<int32_t> blocks[2];
    std::vector<History> histories;  // as the cache has them
};

}  // namespace

void test_attention() {
    for (const CacheType type : kTypes) {
        for (const int64_t head_dim : {2, 10, 16, 64, 80, 128})
            for (const int64_t heads : {1, 3, 4, 7})
                for (const int64_t length : {1, 15, 16, 17, 255, 256}) {
                    check_chunk(type, head_dim, heads, 1, length);
                    if (length >= 15) check_chunk(type, head_dim, heads, (length - 1) % 16 + 1, length);
                }
        check_chunk(type, 64, 4, 5, 53, true);
        Scene(type, 10, 3, 530).check();
        Scene(type, 64, 4, 257).check();
        Scene(type, 16, 1, 256).check();
    }
}

}  // namespace puna::test
