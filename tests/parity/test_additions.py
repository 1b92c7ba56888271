"""Rotations and adaptors: torch against transformers with merged weights, and the engine against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import ADDITIONS, VARIANTS, add_parts, save_tiny
from transformers import LlamaForCausalLM

from puna.engine.native import NativeEngine
from puna.models.open import open_checkpoint
from puna.models.packed import pack_checkpoint, write_checkpoint
from puna.nn.checkpoint import load
from puna.nn.fake_quantized import fake_quantize
from puna.nn.model import Linear, Transformer, hadamard
from puna.nn.packed import ModelCheckpoint
from puna.tokens import Tokenizer

TOLERANCE = 1e-4  # float32 sums in another order
TOKENS = np.random.default_rng(0).integers(0, 260, 70).tolist()
PARTS = {
    "all": ADDITIONS,
    "down rotation": {"has_down_rotation": True},
    "output rotation": {"has_output_rotation": True},
    "adaptors": {"lora_rank": 16, "lora_scale": 2.0},
    "one block": {"has_down_rotation": True, "intermediate_size": 128},
    "no block": {**ADDITIONS, "intermediate_size": 77},
    "tied": {**ADDITIONS, "tie_word_embeddings": True},
}


def model_with(parts: dict[str, object], folder: Path, dtype: torch.dtype = torch.float32) -> Transformer:
    sizes = {key: parts[key] for key in parts if key in ("intermediate_size", "tie_word_embeddings")}
    save_tiny(folder, **sizes)
    added = {key: value for key, value in parts.items() if key not in sizes}
    return add_parts(load(str(folder)), **added).to(dtype)


def sylvester(n: int) -> np.ndarray:
    """Sylvester's Hadamard matrix: -1 where the bits that both indices have are odd in number."""
    index = np.arange(n)
    return 1.0 - 2.0 * (np.bitwise_count(index[:, None] & index) % 2)


def merged(model: Transformer, folder: Path) -> LlamaForCausalLM:
    """transformers' Llama of the same function: everything added is multiplied into its weights."""
    reference = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").double()
    config, weights = model.config, {}
    for name, module in model.model.layers.named_modules():
        if not isinstance(module, Linear):
            continue
        weight = module.weight
        if config.lora_rank:
            weight = weight + config.lora_scale * module.lora_B.weight @ module.lora_A.weight
        if config.has_down_rotation and name.endswith("down_proj"):
            n, block = config.ffn_dim, config.rotation_block
            rotation = np.kron(np.eye(n // block), sylvester(block) / np.sqrt(block))
            weight = weight @ torch.from_numpy(rotation)
        weights[f"model.layers.{name}.weight"] = weight
    if config.has_output_rotation:
        reference.lm_head.weight = torch.nn.Parameter(reference.lm_head.weight.detach().clone())
        weights["lm_head.weight"] = model.lm_head.weight @ model.model.norm.rotation.weight
    with torch.no_grad():
        for name, weight in weights.items():
            reference.get_parameter(name).copy_(weight)
    return reference


@pytest.mark.parametrize("name", PARTS)
def test_float64_logits_equal_transformers_with_merged_weights(name: str, tmp_path: Path) -> None:
    model = model_with(PARTS[name], tmp_path, torch.float64)
    reference = merged(model, tmp_path)
    with torch.no_grad():
        ours, theirs = model(torch.tensor([TOKENS])), reference(torch.tensor([TOKENS])).logits
        plain = load(str(tmp_path), dtype=torch.float64)(torch.tensor([TOKENS]))
    # transformers computes norms and rotary angles in float32.
    assert float((ours - theirs).abs().max()) < TOLERANCE
    if name != "no block":
        assert float((ours - plain).abs().max()) > 0.1


@pytest.mark.parametrize("name", PARTS)
def test_the_engines_logits_equal_the_torch_models(name: str, tmp_path: Path) -> None:
    model = model_with(PARTS[name], tmp_path)
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS]))[0].numpy()
    assert np.abs(logits_of(model, tmp_path) - expected).max() < TOLERANCE


@pytest.mark.parametrize("name", PARTS)
def test_the_fake_quantized_models_logits_equal_the_engines(name: str, tmp_path: Path) -> None:
    model = model_with(PARTS[name], tmp_path)
    fake_quantize(model)
    formats = set(ModelCheckpoint(model).dtypes.values())
    assert ("bf16" in formats) == (name not in ("down rotation", "one block"))
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS]))[0].numpy()
    error = np.abs(logits_of(model, tmp_path) - expected)
    # An input at a tie may round the other way, which moves the logits of its place and those after it.
    assert np.median(error) < 2 * TOLERANCE, float(np.median(error))
    assert error.max() < 0.2, float(error.max())


def logits_of(model: Transformer, folder: Path) -> np.ndarray:
    vocabulary = open_checkpoint(folder).vocabulary()
    engine = NativeEngine(pack_checkpoint(ModelCheckpoint(model)), Tokenizer(vocabulary), cache="f32")
    logits = np.array(engine.logits(TOKENS))
    engine.close()
    return logits


def test_embeddings_are_what_the_head_reads(tmp_path: Path) -> None:
    model = model_with(PARTS["output rotation"], tmp_path)
    vocabulary = open_checkpoint(tmp_path).vocabulary()
    engine = NativeEngine(pack_checkpoint(ModelCheckpoint(model)), Tokenizer(vocabulary), cache="f32")
    ours = engine.embed(TOKENS).result()
    engine.close()
    with torch.no_grad():
        mean = model.model(torch.tensor([TOKENS]))[0].double().mean(0)
    np.testing.assert_allclose(ours, mean.numpy(), atol=TOLERANCE)


def test_a_written_model_computes_the_same_bits(tmp_path: Path) -> None:
    model = model_with(PARTS["tied"], tmp_path / "in")
    fake_quantize(model)
    vocabulary = open_checkpoint(tmp_path / "in").vocabulary()
    write_checkpoint(ModelCheckpoint(model, vocabulary), tmp_path / "out", "auto")
    written = open_checkpoint(tmp_path / "out")
    assert written.config == model.config
    assert written.dtypes["model.layers.1.mlp.down_proj.lora_A.weight"] == "bf16"
    assert written.dtypes["model.norm.rotation.weight"] == "bf16"
    engine = NativeEngine(pack_checkpoint(written), Tokenizer(vocabulary), cache="f32")
    assert np.array_equal(engine.logits(TOKENS), logits_of(model, tmp_path / "in"))
    engine.close()
    # And back into torch, from the packed weights.
    again = load(str(tmp_path / "out"))
    for name, weight in again.state_dict().items():
        if "lora" in name or "rotation" in name:
            assert torch.equal(weight, model.state_dict()[name].bfloat16().float())


@pytest.mark.parametrize("block", [1, 2, 4, 16, 64, 2048])
def test_the_rotation_is_the_hadamard_matrix(block: int) -> None:
    x = torch.randn(3, 2, 2048, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = torch.from_numpy(sylvester(block)) / block**0.5
    expected = (x.unflatten(-1, (-1, block)) @ matrix).flatten(-2)
    torch.testing.assert_close(hadamard(x, block), expected, atol=1e-13, rtol=0)
    torch.testing.assert_close(hadamard(hadamard(x, block), block), x, atol=1e-13, rtol=0)
    bits = torch.compile(hadamard, backend="eager", fullgraph=True, dynamic=False)(x.float(), block)
    assert torch.equal(bits, hadamard(x.float(), block))


def test_every_variant_takes_additions(tmp_path: Path) -> None:
    for name, changes in VARIANTS.items():
        save_tiny(tmp_path / name, **changes)
        model = add_parts(load(str(tmp_path / name)))
        with torch.no_grad():
            expected = model(torch.tensor([TOKENS]))[0].numpy()
        assert np.abs(logits_of(model, tmp_path / name) - expected).max() < 2 * TOLERANCE, name
