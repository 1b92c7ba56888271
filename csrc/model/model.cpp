#include "model/model.h"

#include "base/check.h"
#include "kernels/table.h"

namespace puna {

namespace {

constexpr const char* kFormatNames[] = {"f32",          "bf16",         "int8_channel",
                                        "int8_group32", "int4_group32", "int4_group32_f32"};

void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
    PUNA_CHECK(value >= low && value <= high, std::string("model config: ") + name + " must be " +
                                                  std::to_string(low) + " to " + std::to_string(high) +
                                                  ", got " + std::to_string(value));
}

}  // namespace

void ModelConfig::validate() const {
    // An integer dot product of 65,536 columns still fits 32 bits: 255 x 128 x 65,536 < 2^31.
    check_range("dim", dim, 1, 65536);
    check_range("n_layers", n_layers, 1, 1024);
    check_range("n_heads", n_heads, 1, 1024);
    check_range("n_kv_heads", n_kv_heads, 1, n_heads);
    check_range("head_dim", head_dim, 2, 512);
    check_range("ffn_dim", ffn_dim, 1, 65536);
    check_range("q_dim", q_dim(), 1, 65536);
    check_range("vocab_size", vocab_size, 1, 1 << 20);
    check_range("max_seq_len", max_seq_len, 1, 1 << 24);
    check_range("lora_rank", lora_rank, 0, 65536);
    PUNA_CHECK(n_heads % n_kv_heads == 0, "model config: n_heads (" + std::to_string(n_heads) +
                                              ") must be a multiple of n_kv_heads (" +
                                              std::to_string(n_kv_heads) + ")");
    PUNA_CHECK(head_dim % 2 == 0, "model config: head_dim must be even, got " + std::to_string(head_dim));
    PUNA_CHECK(rope_frequencies.size() == static_cast<size_t>(head_dim / 2),
               "model config: need " + std::to_string(head_dim / 2) + " rope frequencies, got " +
                   std::to_string(rope_frequencies.size()));
}

int64_t Weight::bytes() const { return checked_mul(tiles(), tile_bytes(format, padded_columns())); }

Format format_from_name(const std::string& name) {
    int i = 0;
    for (const char* known : kFormatNames) {
        if (name == known) return static_cast<Format>(i);
        i++;
    }
    throw Error("weight format '" + name +
                "' is unknown; known: f32, bf16, int8_channel, int8_group32, int4_group32, int4_group32_f32");
}

const char* format_name(Format format) { return kFormatNames[static_cast<int>(format)]; }

}  // namespace puna
