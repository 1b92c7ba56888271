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
    bool has_down_rotation = false;        // a Hadamard rotation of what the down projection reads
    bool has_output_rotation = false;      // a matrix between the last norm and the head
    int64_t lora_rank = 0;                 // of the adaptors of every linear of a layer; 0: there are none
    float lora_scale = 1.0f;

    int64_t q_dim() const { return n_heads * head_dim; }
    int64_t kv_dim() const { return n_kv_heads * head_dim; }
    // The rotation is block-diagonal: the largest power of two that divides ffn_dim.
    int64_t rotation_block() const { return ffn_dim & -ffn_dim; }

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

// y = W x, with an adaptor y = W x + lora_scale * B (A x), where x is not rounded to int8 first.
struct Linear {
    Weight weight;
    Weight a, b;  // [lora_rank][columns] and [rows][lora_rank], float formats; no rows where there is none

    bool has_adaptor() const { return a.rows > 0; }
};

struct Layer {
    const float* attention_norm;
    const float* ffn_norm;
    Linear q, k, v, o, gate, up, down;
};

struct Model {
    ModelConfig config;
    std::vector<Layer> layers;
    Weight embedding;
    Linear head;             // the embedding's matrix where tied
    Linear output_rotation;  // [dim][dim], where the config has one
    const float* final_norm;
};

Format format_from_name(const std::string& name);
const char* format_name(Format format);

}  // namespace puna
