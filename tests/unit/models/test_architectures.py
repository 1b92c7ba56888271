"""Counts of weights and shapes against transformers' own models, built without memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from puna.models.architectures import ClassifierArchitecture, VisionArchitecture
from puna.models.catalogue import CATALOGUE
from puna.models.config import ModelConfig

ARCHITECTURES = {row.architecture: row.name for row in CATALOGUE}


def count(model_type: Any, config: Any) -> int:
    with torch.device("meta"):
        model = model_type(config)
    return sum(parameter.numel() for parameter in model.parameters())


def text(config: ModelConfig) -> int:
    plain = replace(config, has_down_rotation=False, lora_rank=0)
    n = count(transformers.LlamaForCausalLM, transformers.LlamaConfig(**plain.to_hf()))
    # The adaptors of the quantized models, by hand: a row in and a column out for each of a layer's seven.
    sides = 9 * config.dim + 3 * config.ffn_dim + 2 * config.n_kv_heads * config.head_dim
    return n + config.n_layers * config.lora_rank * sides


def vision(architecture: VisionArchitecture) -> int:
    trunk, every = architecture.text, architecture.text.n_layers // architecture.n_cross_layers + 1
    n_layers = trunk.n_layers + architecture.n_cross_layers
    config = transformers.MllamaConfig(
        text_config={
            "hidden_size": trunk.dim,
            "num_hidden_layers": n_layers,
            "num_attention_heads": trunk.n_heads,
            "num_key_value_heads": trunk.n_kv_heads,
            "intermediate_size": trunk.ffn_dim,
            "vocab_size": trunk.vocab_size,
            "cross_attention_layers": list(range(3, n_layers, every)),
            "tie_word_embeddings": False,
        },
        vision_config={"image_size": 560, "vision_output_dim": 7680},
    )
    assert len(config.text_config.cross_attention_layers) == architecture.n_cross_layers
    return count(transformers.MllamaForConditionalGeneration, config)


def classifier(architecture: ClassifierArchitecture) -> int:
    config = transformers.DebertaV2Config(
        vocab_size=architecture.vocab_size,
        hidden_size=architecture.dim,
        num_hidden_layers=architecture.n_layers,
        num_attention_heads=architecture.n_heads,
        intermediate_size=architecture.ffn_dim,
        num_labels=architecture.n_classes,
        relative_attention=True,
        position_buckets=architecture.position_buckets,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    )
    return count(transformers.DebertaV2ForSequenceClassification, config)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=ARCHITECTURES.values())
def test_transformers_counts_the_same(architecture: Any) -> None:
    counts = {ModelConfig: text, VisionArchitecture: vision, ClassifierArchitecture: classifier}
    assert architecture.n_parameters == counts[type(architecture)](architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=ARCHITECTURES.values())
def test_text_architectures_are_valid(architecture: Any) -> None:
    trunk = architecture.text if isinstance(architecture, VisionArchitecture) else architecture
    if isinstance(trunk, ModelConfig):
        assert ModelConfig.from_hf(trunk.to_puna()) == trunk
