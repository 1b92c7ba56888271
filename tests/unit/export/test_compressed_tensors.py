"""Checkpoints of the kind "pack-quantized", decoded by compressed-tensors and run by transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationConfig, QuantizationStrategy
from safetensors.torch import load_file
from tests.unit.export.conftest import TOKENS
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from puna.errors import CheckpointError
from puna.export.compressed_tensors import write_compressed_tensors
from puna.models.files import read_json_object
from puna.nn.checkpoint import from_checkpoint
from puna.nn.fake_quantized import fake_quantize
from puna.nn.packed import ModelCheckpoint

TOLERANCE = 0.05  # both round activations to 8 bits, and the engine those of the head too


def test_the_library_decodes_the_same_integers(make: Any, tmp_path: Path) -> None:
    checkpoint = make("int4")
    assert write_compressed_tensors(checkpoint, tmp_path / "ct") == [
        "numbers of model.embed_tokens.weight, model.layers.0.input_layernorm.weight, "
        "model.layers.0.post_attention_layernorm.weight, model.layers.1.input_layernorm.weight, "
        "model.layers.1.post_attention_layernorm.weight, model.norm.weight, lm_head.weight "
        "are rounded to float16"
    ]
    state = load_file(tmp_path / "ct" / "model.safetensors")
    for name in (name for name in checkpoint.config.tensor_shapes() if name.endswith("proj.weight")):
        integers, scales = checkpoint.packed(name).to_integers()
        shape = torch.Size(state.pop(f"{name}_shape").tolist())
        decoded = unpack_from_int32(state.pop(f"{name}_packed"), 4, shape)
        np.testing.assert_array_equal(decoded, integers, err_msg=name)
        np.testing.assert_array_equal(state.pop(f"{name}_scale"), scales, err_msg=name)
    for name, tensor in state.items():
        values = torch.from_numpy(checkpoint.tensor(name).to_float32())
        assert torch.equal(tensor, values.half()), name


def test_the_scheme_is_the_one_of_the_engine(make: Any, tmp_path: Path) -> None:
    write_compressed_tensors(make("int4"), tmp_path / "ct")
    raw = read_json_object(tmp_path / "ct" / "config.json")["quantization_config"]
    (group,) = QuantizationConfig.model_validate(raw).config_groups.values()
    assert group.targets == ["Linear"]
    weights, activations = group.weights, group.input_activations
    assert (weights.num_bits, weights.group_size, weights.symmetric) == (4, 32, True)
    assert (activations.num_bits, activations.symmetric, activations.dynamic) == (8, False, True)
    assert activations.strategy == QuantizationStrategy.TOKEN


def test_transformers_runs_it(make: Any, logits: Callable[..., Any], tmp_path: Path) -> None:
    checkpoint = make("int4")
    write_compressed_tensors(checkpoint, tmp_path / "ct")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ct", dtype=torch.float32)
    with torch.no_grad():
        theirs = model(torch.tensor([TOKENS])).logits[0].numpy()
    ours = logits(checkpoint.path)
    assert np.abs(ours - theirs).max() < TOLERANCE * np.abs(ours).max()


def test_transformers_dequantizes_the_same_numbers(make: Any, tmp_path: Path) -> None:
    checkpoint = make("int4")
    write_compressed_tensors(checkpoint, tmp_path / "ct")
    config = CompressedTensorsConfig(dequantize=True)
    with pytest.warns(UserWarning, match=r"loading attributes \(e.g. \['dequantize'"):
        model = AutoModelForCausalLM.from_pretrained(
            tmp_path / "ct", dtype=torch.float32, quantization_config=config
        )
    for name, parameter in model.named_parameters():
        values = torch.from_numpy(checkpoint.tensor(name).to_float32())
        # it multiplies integers by scales in float16, as both are stored
        assert torch.equal(parameter, values.half().float()), name


def test_numbers_that_float16_cannot_hold_are_refused(make: Any, tmp_path: Path) -> None:
    plain = make("int4")
    source = from_checkpoint(plain)
    fake_quantize(source)
    with torch.no_grad():
        source.model.norm.weight[3] = 1e6
    checkpoint = ModelCheckpoint(source, plain.vocabulary())
    with pytest.raises(
        CheckpointError, match=r"'model\.norm\.weight' has a number that .* large for float16"
    ):
        write_compressed_tensors(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_blocks_are_refused(make: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"takes 4-bit integers .* stored as bf16; use --format int4"):
        write_compressed_tensors(make("bf16"), tmp_path / "ct")
    with pytest.raises(CheckpointError, match=r"needs rows of a multiple of 32 elements, .* has 40"):
        write_compressed_tensors(make("int4", num_attention_heads=4, head_dim=10), tmp_path / "ct")
    assert not (tmp_path / "ct").exists()
