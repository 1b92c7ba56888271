from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from puna.errors import CheckpointError
from puna.models.config import ModelConfig, RopeScaling

LLAMA3 = RopeScaling(kind="llama3", factor=32, low_freq_factor=1, high_freq_factor=4, original_context=8192)
SCALINGS = [None, LLAMA3, RopeScaling(kind="linear", factor=2.5)]


def hf(**changes: Any) -> dict[str, Any]:
    raw = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 40, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "tie_word_embeddings": True,
    }  # fmt: skip
    return {key: value for key, value in (raw | changes).items() if value is not ...}


def gguf(**changes: Any) -> dict[str, Any]:
    raw = {
        "embedding_length": 64, "block_count": 2, "attention.head_count": 4, "attention.head_count_kv": 2,
        "feed_forward_length": 96, "vocab_size": 40, "context_length": 128, "rope.freq_base": 500_000.0,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }  # fmt: skip
    keys = {f"llama.{key}": value for key, value in (raw | changes).items() if value is not ...}
    return {"general.architecture": "llama", **keys}


def test_the_two_spellings_mean_the_same() -> None:
    assert ModelConfig.from_hf(hf()) == ModelConfig.from_gguf(gguf())


@pytest.mark.parametrize("scaling", SCALINGS)
def test_what_is_written_is_read(scaling: RopeScaling | None) -> None:
    config = replace(ModelConfig.from_hf(hf()), rope_scaling=scaling)
    assert ModelConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config


def test_factors_are_written_and_read() -> None:
    config = ModelConfig.from_gguf(gguf(), rope_factors=tuple(range(1, 9)))
    assert ModelConfig.from_hf(config.to_hf()) == config


ADDITIONS = {"has_down_rotation": True, "has_output_rotation": True, "lora_rank": 8, "lora_scale": 2.0}


@pytest.mark.parametrize(
    "added",
    [
        {"has_down_rotation": True},
        {"has_output_rotation": True},
        {"lora_rank": 8, "lora_scale": 2.0},
        ADDITIONS,
    ],
)
def test_what_no_plain_llama_has_is_written_for_puna_alone(added: dict[str, Any]) -> None:
    config = replace(ModelConfig.from_hf(hf()), **added)
    assert ModelConfig.from_hf(json.loads(json.dumps(config.to_puna()))) == config
    with pytest.raises(CheckpointError, match=r"cannot say that a model has .*; keep it as a Puna"):
        config.to_hf()
    plain = ModelConfig.from_hf(hf())
    assert plain.to_puna() == plain.to_hf()


def test_additions_have_tensors_of_their_own() -> None:
    plain = ModelConfig.from_hf(hf())
    shapes = replace(plain, **ADDITIONS).tensor_shapes()
    added = {name: shape for name, shape in shapes.items() if name not in plain.tensor_shapes()}
    assert len(added) == 2 * 7 * 2 + 1
    assert added["model.norm.rotation.weight"] == (64, 64)
    assert added["model.layers.1.mlp.down_proj.lora_A.weight"] == (8, 96)
    assert added["model.layers.1.mlp.down_proj.lora_B.weight"] == (64, 8)
    assert added["model.layers.0.self_attn.k_proj.lora_B.weight"] == (32, 8)


@pytest.mark.parametrize(("ffn_dim", "block"), [(8192, 8192), (1536, 512), (96, 32), (77, 1)])
def test_the_rotations_block_is_the_largest_power_of_two(ffn_dim: int, block: int) -> None:
    assert replace(ModelConfig.from_hf(hf()), ffn_dim=ffn_dim).rotation_block == block


@pytest.mark.parametrize("scaling", SCALINGS)
def test_rope_frequencies_equal_transformers(scaling: RopeScaling | None) -> None:
    config = replace(
        ModelConfig.from_hf(hf()), head_dim=64, rope_scaling=scaling, max_seq_len=131_072, dim=256
    )
    theirs = LlamaRotaryEmbedding(LlamaConfig(**config.to_hf())).inv_freq
    # theirs is computed in float32: some roundings of 2^-24 each
    np.testing.assert_allclose(config.rope_frequencies(), theirs.double().numpy(), rtol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_tensor_names_and_shapes_equal_transformers(tied: bool) -> None:
    config = replace(ModelConfig.from_hf(hf()), tied_embeddings=tied)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**config.to_hf()))
    theirs = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert config.tensor_shapes() == theirs
    assert config.n_parameters == sum(math.prod(shape) for shape in theirs.values())


def test_configs_that_transformers_writes_are_read() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192, "rope_theta": 500_000.0}  # fmt: skip
    raw = json.loads(LlamaConfig(rope_parameters=scaling).to_json_string())
    config = ModelConfig.from_hf(raw)
    assert config.rope_theta == 500_000.0
    assert config.rope_scaling == replace(LLAMA3, factor=8.0)


BAD_HF = {
    "no width": (hf(hidden_size=...), "`hidden_size` must be a whole number, got None"),
    "a width of text": (hf(hidden_size="64"), "`hidden_size` must be a whole number, got '64'"),
    "a boolean": (hf(num_hidden_layers=True), "`num_hidden_layers` must be a whole number, got True"),
    "no layers": (hf(num_hidden_layers=0), "`n_layers` must be a whole number from 1 to 1024, got 0"),
    "a billion layers": (hf(num_hidden_layers=10**9), "from 1 to 1024, got 1000000000"),
    "no heads": (hf(num_attention_heads=0), "`num_attention_heads` must be at least 1, got 0"),
    "heads that do not divide": (hf(num_key_value_heads=3), "must be a multiple of `n_kv_heads`, got 3"),
    "minus one head": (hf(num_key_value_heads=-1), "must be a multiple of `n_kv_heads`, got -1"),
    "an odd head": (hf(head_dim=15), "`head_dim` must be even, got 15"),
    "a huge vocabulary": (hf(vocab_size=2**63), "`vocab_size` must be a whole number from 1 to 1048576"),
    "a base of 0": (hf(rope_theta=0), "`rope_theta` must be at least 1 and finite, got 0.0"),
    "a tiny base": (hf(rope_theta=5e-324), "`rope_theta` must be at least 1 and finite, got 5e-324"),
    "an infinite base": (hf(rope_theta=math.inf), "`rope_theta` must be at least 1 and finite, got inf"),
    "a base of NaN": (hf(rope_theta=math.nan), "`rope_theta` must be at least 1 and finite, got nan"),
    "a base that is no float": (hf(rope_theta=10**400), "`rope_theta` must be a number that fits a float"),
    "an epsilon of NaN": (hf(rms_norm_eps=math.nan), "`norm_eps` must be between 0 and 1, got nan"),
    "an epsilon of text": (hf(rms_norm_eps="1e-5"), "`rms_norm_eps` must be a number, got '1e-5'"),
    "tied maybe": (hf(tie_word_embeddings=None), "`tie_word_embeddings` must be true or false, got None"),
    "biases": (hf(attention_bias=True), "`attention_bias` must be False, got True"),
    "another activation": (hf(hidden_act="gelu"), "`hidden_act` must be 'silu', got 'gelu'"),
    "quantized": (hf(quantization_config={"bits": 4}), "`quantization_config` must be None"),
    "an unknown key": (hf(sliding_window=4), "unknown keys ['sliding_window']"),
    "a rotation maybe": (hf(has_down_rotation=1), "`has_down_rotation` must be true or false, got 1"),
    "a rank of text": (hf(lora_rank="8"), "`lora_rank` must be a whole number, got '8'"),
    "a rank below 0": (hf(lora_rank=-1), "`lora_rank` must be a whole number from 0 to `dim` (64), got -1"),
    "a rank above the width": (hf(lora_rank=65), "from 0 to `dim` (64), got 65"),
    "an infinite scale": (hf(lora_rank=8, lora_scale=math.inf), "`lora_scale` must be finite, got inf"),
    "another model": ({}, "`model_type` must be 'llama', got None"),
    "an unknown rope type": (hf(rope_scaling={"rope_type": "yarn"}), "got 'yarn'"),
    "a rope type in a list": (hf(rope_scaling={"rope_type": []}), "rope type must be one of"),
    "rope scaling a list": (hf(rope_scaling=[1]), "`rope_scaling` must be an object, got [1]"),
    "rope without factor": (hf(rope_scaling={"type": "linear"}), "rope type 'linear' needs `factor`"),
    "a rope factor under 1": (hf(rope_scaling={"type": "linear", "factor": 0.5}), "at least 1, got 0.5"),
    "rope with more": (hf(rope_scaling={"type": "linear", "factor": 2, "x": 1}), "unknown rope keys ['x']"),
    "too few factors": (
        hf(rope_scaling={"rope_type": "factors", "factors": [1.0]}),
        "rope scaling needs 8 factors above 0, got 1",
    ),
    "an infinite context": (
        hf(rope_scaling={"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                         "original_max_position_embeddings": math.inf}),
        "`original_max_position_embeddings` must be a whole number, got inf",
    ),
    "frequency factors the wrong way": (
        hf(rope_scaling={"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
                         "original_max_position_embeddings": 8192}),
        "needs 0 < low_freq_factor < high_freq_factor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_HF)
def test_bad_config_json(case: str) -> None:
    raw, words = BAD_HF[case]
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_hf(raw)
    assert words in str(caught.value)


BAD_GGUF = {
    "another model": (gguf() | {"general.architecture": "qwen2"}, "must be 'llama', got 'qwen2'"),
    "no width": (gguf(embedding_length=...), "`llama.embedding_length` must be a whole number, got None"),
    "heads a layer": (gguf(**{"attention.head_count_kv": [2, 2]}), "must be a whole number, got [2, 2]"),
    "no heads": (gguf(**{"attention.head_count": 0}), "must be at least 1, got 0"),
    "part of a head turned": (gguf(**{"rope.dimension_count": 8}), "must equal the head width 16"),
    "narrow values": (gguf(**{"attention.value_length": 8}), "must equal the head width 16"),
    "yarn": (gguf(**{"rope.scaling.type": "yarn"}), "must be 'linear' or 'none', got 'yarn'"),
    "an unknown key": (gguf(expert_count=8), "unknown keys ['llama.expert_count']"),
    "no vocabulary": (gguf(vocab_size=...), "`llama.vocab_size` must be a whole number, got None"),
}


@pytest.mark.parametrize("case", BAD_GGUF)
def test_bad_gguf_keys(case: str) -> None:
    raw, words = BAD_GGUF[case]
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_gguf(raw)
    assert words in str(caught.value)


def test_two_rope_scalings_at_once() -> None:
    keys = gguf(**{"rope.scaling.type": "linear", "rope.scaling.factor": 2.0})
    assert ModelConfig.from_gguf(keys).rope_scaling == RopeScaling(kind="linear", factor=2.0)
    with pytest.raises(CheckpointError, match="must be 'linear' or by factors, got both"):
        ModelConfig.from_gguf(keys, rope_factors=(1.0,) * 8)


def test_the_vocabulary_counts_where_no_size_is_given() -> None:
    keys = gguf(vocab_size=...) | {"tokenizer.ggml.tokens": ["a", "b", "c"]}
    assert ModelConfig.from_gguf(keys).vocab_size == 3
