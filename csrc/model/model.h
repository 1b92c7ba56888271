// The weights of a Llama, as views into memory that the caller keeps alive (usually a mapped file).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/layout.h"

namespace puna {

struct ModelConfig {
    int64_t dim, n_layers, n_heads, n_kv_heads, head_dim, ffn_dim, vocab_size, max_seq_len;
    float norm_eps;
    std::vector<double> rope_frequencies;  // head_dim / 2, radians a token

    int64_t q_dim() const { return n_heads * head_dim; }
    int64_t kv_dim() const { return n_kv_heads * head_dim; }

    // Error where a field is outside what the engine can run.
    void validate() const;
};

// A packed matrix; see layout.h.
struct Weight {
    Format format = Format::f32;
    int64_t rows = 0, columns = 0;  // true sizes
    const uint8_t* data = nullptr;

    int64_t padded_rows() const { return (rows + kTileRows - 1) / kTileRows * kTileRows; }
    int64_t padded_columns() const { return (columns + kColumnBlock - 1) / kColumnBlock * kColumnBlock; }
    int64_t tiles() const { return padded_rows() / kTileRows; }
    // Bytes that `data` must hold; Error on overflow.
    int64_t bytes() const;
};

struct Layer {
    const float* attention_norm;
    const float* ffn_norm;
    Weight q, k, v, o, gate, up, down;
};

struct Model {
    ModelConfig config;
    std::vector<Layer> layers;
    Weight embedding, head;  // the same matrix where tied
    const float* final_norm;
};

Format format_from_name(const std::string& name);
const char* format_name(Format format);

}  // namespace puna
