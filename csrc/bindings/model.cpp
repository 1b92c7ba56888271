#include "model/model.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/check.h"
#include "bindings/bindings.h"
#include "cache/cache.h"

namespace puna {

namespace {

Weight matrix(const nb::dict& tensors, const std::string& name, int64_t rows, int64_t columns) {
    PUNA_CHECK(tensors.contains(name.c_str()), "model: tensor '" + name + "' is missing");
    const nb::tuple entry = nb::cast<nb::tuple>(tensors[name.c_str()]);
    const auto data = nb::cast<Bytes>(entry[1]);
    Weight w;
    w.format = format_from_name(nb::cast<std::string>(entry[0]));
    w.rows = rows;
    w.columns = columns;
    PUNA_CHECK(static_cast<int64_t>(data.shape(0)) == w.bytes(),
               "model: tensor '" + name + "' needs " + std::to_string(w.bytes()) + " bytes as " +
                   format_name(w.format) + ", got " + std::to_string(data.shape(0)));
    w.data = data.data();
    PUNA_CHECK(reinterpret_cast<uintptr_t>(w.data) % 4 == 0, "model: tensor '" + name + "' is not aligned");
    return w;
}

const float* vector(const nb::dict& tensors, const std::string& name, int64_t size) {
    PUNA_CHECK(tensors.contains(name.c_str()), "model: tensor '" + name + "' is missing");
    const auto data = nb::cast<Array<float, 1>>(tensors[name.c_str()]);
    PUNA_CHECK(static_cast<int64_t>(data.shape(0)) == size, "model: tensor '" + name + "' needs " +
                                                                std::to_string(size) + " values, got " +
                                                                std::to_string(data.shape(0)));
    return data.data();
}

Linear linear(const ModelConfig& c, const nb::dict& tensors, const std::string& name, int64_t rows,
              int64_t columns) {
    Linear found;
    found.weight = matrix(tensors, name + ".weight", rows, columns);
    if (c.lora_rank == 0) return found;
    found.a = matrix(tensors, name + ".lora_A.weight", c.lora_rank, columns);
    found.b = matrix(tensors, name + ".lora_B.weight", rows, c.lora_rank);
    return found;
}

Layer make_layer(const ModelConfig& c, const nb::dict& tensors, int64_t index) {
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    Layer layer;
    layer.attention_norm = vector(tensors, prefix + "input_layernorm.weight", c.dim);
    layer.ffn_norm = vector(tensors, prefix + "post_attention_layernorm.weight", c.dim);
    layer.q = linear(c, tensors, prefix + "self_attn.q_proj", c.q_dim(), c.dim);
    layer.k = linear(c, tensors, prefix + "self_attn.k_proj", c.kv_dim(), c.dim);
    layer.v = linear(c, tensors, prefix + "self_attn.v_proj", c.kv_dim(), c.dim);
    layer.o = linear(c, tensors, prefix + "self_attn.o_proj", c.dim, c.q_dim());
    layer.gate = linear(c, tensors, prefix + "mlp.gate_proj", c.ffn_dim, c.dim);
    layer.up = linear(c, tensors, prefix + "mlp.up_proj", c.ffn_dim, c.dim);
    layer.down = linear(c, tensors, prefix + "mlp.down_proj", c.dim, c.ffn_dim);
    return layer;
}

}  // namespace

void bind_model(nb::module_& m) {
    nb::class_<ModelConfig>(m, "ModelConfig")
        .def(
            "__init__",
            [](ModelConfig* self, int64_t dim, int64_t n_layers, int64_t n_heads, int64_t n_kv_heads,
               int64_t head_dim, int64_t ffn_dim, int64_t vocab_size, int64_t max_seq_len, float norm_eps,
               std::vector<double> rope_frequencies, bool has_down_rotation, bool has_output_rotation,
               int64_t lora_rank, float lora_scale) {
                new (self) ModelConfig{dim,
                                       n_layers,
                                       n_heads,
                                       n_kv_heads,
                                       head_dim,
                                       ffn_dim,
                                       vocab_size,
                                       max_seq_len,
                                       norm_eps,
                                       std::move(rope_frequencies),
                                       has_down_rotation,
                                       has_output_rotation,
                                       lora_rank,
                                       lora_scale};
                self->validate();
            },
            nb::kw_only(), nb::arg("dim"), nb::arg("n_layers"), nb::arg("n_heads"), nb::arg("n_kv_heads"),
            nb::arg("head_dim"), nb::arg("ffn_dim"), nb::arg("vocab_size"), nb::arg("max_seq_len"),
            nb::arg("norm_eps"), nb::arg("rope_frequencies"), nb::arg("has_down_rotation") = false,
            nb::arg("has_output_rotation") = false, nb::arg("lora_rank") = 0, nb::arg("lora_scale") = 1.0f);

    // Keeps the dict, and so the arrays that the weights point into, alive.
    nb::class_<Model>(m, "Model")
        .def(
            "__init__",
            [](Model* self, const ModelConfig& config,
               const nb::typed<nb::dict, nb::str, nb::object>& tensors, bool is_tied) {
                Model model;
                model.config = config;
                for (int64_t i = 0; i < config.n_layers; i++)
                    model.layers.push_back(make_layer(config, tensors, i));
                model.embedding = matrix(tensors, "model.embed_tokens.weight", config.vocab_size, config.dim);
                model.head.weight = is_tied
                                        ? model.embedding
                                        : matrix(tensors, "lm_head.weight", config.vocab_size, config.dim);
                if (config.has_output_rotation)
                    model.output_rotation.weight =
                        matrix(tensors, "model.norm.rotation.weight", config.dim, config.dim);
                model.final_norm = vector(tensors, "model.norm.weight", config.dim);
                new (self) Model(std::move(model));
            },
            nb::arg("config"), nb::arg("tensors"), nb::arg("is_tied"), nb::keep_alive<1, 3>(),
            "tensors: name to (format, packed uint8) for matrices, to float32 for norms.");

    nb::class_<Cache>(m, "Cache")
        .def(
            "__init__",
            [](Cache* self, const ModelConfig& config, int64_t n_blocks, const std::string& type) {
                new (self) Cache(config, n_blocks, cache_type_from_name(type));
            },
            nb::arg("config"), nb::arg("n_blocks"), nb::arg("type"))
        .def_prop_ro("n_blocks", &Cache::n_blocks)
        .def_prop_ro("bytes_per_block", &Cache::bytes_per_block);
    m.def(
        "cache_block_bytes",
        [](const std::string& type, int64_t head_dim) {
            PUNA_CHECK(head_dim >= 1 && head_dim <= 65536, "cache: no head has this size");
            return kv_layout(cache_type_from_name(type), head_dim).block_bytes;
        },
        nb::arg("type"), nb::arg("head_dim"),
        "Bytes of a block of BLOCK_TOKENS positions, of one layer and head.");
    m.attr("BLOCK_TOKENS") = kBlockTokens;
}

}  // namespace puna
