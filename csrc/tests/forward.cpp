// The whole forward pass: the same bits however a text is cut into steps, whatever else is in the batch, on
// every table, with any number of threads.
#include <algorithm>

#include "base/half.h"
#include "cache/cache.h"
#include "kernels/dispatch.h"
#include "model/runner.h"
#include "pack/pack.h"
#include "tests/check.h"

namespace puna::test {

namespace {

// A tiny Llama with random weights, odd sizes and one format for all matrices; on request with everything
// that the quantized models add: a rotation before the down projections, adaptors, a matrix before the head.
struct TinyModel {
    Model model;
    std::vector<std::vector<uint8_t>> packed;
    std::vector<std::vector<float>> norms;

    explicit TinyModel(Format format, bool has_additions) {
        ModelConfig& c = model.config;
        c = {44, 2, 6, 2, 10, 72, 50, 1024, 1e-5f, {}};
        if (has_additions) {
            c.ffn_dim = 96;  // three blocks of 32
            c.has_down_rotation = c.has_output_rotation = true;
            c.lora_rank = 6;
            c.lora_scale = 1.7f;
        }
        for (int i = 0; i < 5; i++) c.rope_frequencies.push_back(std::pow(10000.0, -i / 5.0));
        packed.reserve(64);
        norms.reserve(8);
        for (int64_t i = 0; i < c.n_layers; i++) {
            Layer layer;
            layer.attention_norm = norm();
            layer.ffn_norm = norm();
            layer.q = linear(format, c.q_dim(), c.dim);
            layer.k = linear(format, c.kv_dim(), c.dim);
            layer.v = linear(format, c.kv_dim(), c.dim);
            layer.o = linear(format, c.dim, c.q_dim());
            layer.gate = linear(format, c.ffn_dim, c.dim);
            layer.up = linear(format, c.ffn_dim, c.dim);
            layer.down = linear(format, c.dim, c.ffn_dim);
            model.layers.push_back(layer);
        }
        model.embedding = model.head.weight = matrix(format, c.vocab_size, c.dim);
        if (has_additions) model.output_rotation.weight = matrix(Format::bf16, c.dim, c.dim);
        model.final_norm = norm();
    }

    const float* norm() {
        norms.push_back(random_floats(model.config.dim, static_cast<uint32_t>(norms.size()), 0.5f));
        return norms.back().data();
    }
    Linear linear(Format format, int64_t rows, int64_t columns) {
        Linear made;
        made.weight = matrix(format, rows, columns);
        if (model.config.lora_rank == 0) return made;
        made.a = matrix(Format::bf16, model.config.lora_rank, columns);
        made.b = matrix(Format::bf16, rows, model.config.lora_rank);
        return made;
    }
    Weight matrix(Format format, int64_t rows, int64_t columns) {
        const auto values = random_floats(rows * columns, static_cast<uint32_t>(100 + packed.size()), 0.2f);
        Weight w;
        w.format = format;
        w.rows = rows;
        w.columns = columns;
        packed.emplace_back(static_cast<size_t>(w.bytes()));
        w.data = packed.back().data();
        if (!is_integer(format)) {
            (format == Format::f32 ? pack_f32 : pack_bf16)(values.data(), rows, columns,
                                                           packed.back().data());
            return w;
        }
        std::vector<int8_t> q(values.size());
        std::vector<uint16_t> scale(static_cast<size_t>(rows * ((columns + 31) / 32)));
        round_groups(4, values.data(), rows, columns, q.data(), scale.data());
        if (format == Format::int4_group32_f32) {
            std::vector<float> wide(scale.size());
            for (size_t i = 0; i < scale.size(); i++) wide[i] = f16_to_f32(scale[i]) * 1.0001f;
            pack_groups_f32(q.data(), wide.data(), rows, columns, packed.back().data());
            return w;
        }
        pack_groups(format, q.data(), scale.data(), rows, columns, packed.back().data());
        return w;
    }
};

std::vector<int32_t> text(int64_t length, uint32_t seed) {
    std::vector<int32_t> tokens;
    for (const float v : random_floats(length, seed))
        tokens.push_back(static_cast<int32_t>(std::fabs(v) * 1000) % 50);
    return tokens;
}

// Logits of `length` positions, computed `chunk` tokens a step beside an unrelated sequence where `crowded`.
std::vector<float> all_logits(const TinyModel& tiny, CacheType type, int64_t length, int n_threads,
                              int64_t chunk, bool crowded) {
    const ModelConfig& c = tiny.model.config;
    const int64_t n_blocks = length / kBlockTokens + 1;
    Cache cache(c, 2 * n_blocks, type);
    Runner runner(tiny.model, cache, n_threads);
    // Blocks in reverse order: a table that is not the identity.
    std::vector<int32_t> mine, others;
    for (int64_t i = 0; i < n_blocks; i++) {
        mine.push_back(static_cast<int32_t>(2 * n_blocks - 1 - i));
        others.push_back(static_cast<int32_t>(i));
    }
    const auto tokens = text(length, 1), other = text(length, 2);
    std::vector<float> logits(static_cast<size_t>(length * c.vocab_size));
    for (int64_t start = 0; start < length; start += chunk) {
        const int64_t n = std::min(chunk, length - start);
        Batch batch;
        const auto add = [&](const std::vector<int32_t>& sequence, const std::vector<int32_t>& blocks) {
            for (int64_t i = start; i < start + n; i++)
                batch.tokens.push_back(sequence[static_cast<size_t>(i)]);
            batch.slices.push_back({n, start, blocks.data(), n_blocks});
        };
        if (crowded) add(other, others);
        const auto before = static_cast<int64_t>(batch.tokens.size());
        add(tokens, mine);
        for (int64_t i = 0; i < n; i++) batch.output_rows.push_back(before + i);
        runner.logits(batch, logits.data() + start * c.vocab_size);
    }
    return logits;
}

}  // namespace

// FNV-1a over the bytes.
uint64_t digest(const std::vector<float>& values) {
    uint64_t hash = 14695981039346656037u;
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    for (size_t i = 0; i < values.size() * sizeof(float); i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

struct Case {
    Format format;
    CacheType cache;
    bool has_additions;
    // Of the logits: what every machine must get, x86-64 and Arm alike; a change of numerics changes it, on
    // purpose.
    uint64_t digest;
};
constexpr Case kCases[] = {{Format::f32, CacheType::f32, false, 0x224cb2b926ab52a5u},
                           {Format::bf16, CacheType::f16, false, 0x5cdf90e353991a51u},
                           {Format::int4_group32, CacheType::f16, false, 0x38072fc6fd3d7d4fu},
                           {Format::int4_group32, CacheType::int8, false, 0xdde5c82105e8652bu},
                           {Format::bf16, CacheType::f16, true, 0x63d831981cd83ef8u},
                           {Format::int4_group32, CacheType::f16, true, 0xf475a63eb056c6cfu},
                           {Format::int4_group32_f32, CacheType::f16, true, 0x0da648740c57ba0eu}};

void test_forward() {
    const std::string chosen = kernels().name;
    for (const auto& [format, type, has_additions, expected_digest] : kCases) {
        const TinyModel tiny(format, has_additions);
        // Over an attention chunk's end; what is added has nothing to do with these.
        const int64_t length = has_additions ? 111 : 300;
        set_isa("scalar");
        const auto expected = all_logits(tiny, type, length, 1, 100, false);
        REQUIRE(std::all_of(expected.begin(), expected.end(), [](float v) { return std::isfinite(v); }));
        std::printf("digest of the logits, %s%s%s: %016llx\n", format_name(format),
                    type == CacheType::int8 ? " and an int8 cache" : "",
                    has_additions ? " with rotations and adaptors" : "",
                    static_cast<unsigned long long>(digest(expected)));
        REQUIRE(digest(expected) == expected_digest);
        for (const char* isa : runnable_isas()) {
            set_isa(isa);
            REQUIRE(same_bits(all_logits(tiny, type, length, 1, length, false), expected));
            REQUIRE(same_bits(all_logits(tiny, type, length, 3, 37, true), expected));
        }
        set_isa(chosen);
        REQUIRE(same_bits(all_logits(tiny, type, length, 2, 1, false), expected));
    }
}

}  // namespace puna::test
