"""Logits of tiny random models against transformers, full tensors, and against themselves in pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import LLAMA3_ROPE, VARIANTS, save_tiny

from puna import _native
from puna.engine.native import NativeEngine
from puna.llama import Llama, load
from puna.models.open import open_checkpoint
from puna.models.packed import pack_checkpoint, write_checkpoint
from puna.tokens import Tokenizer

TOLERANCE = 1e-4  # float32 sums in another order over these sizes; logits are of size 1 to 20


def tokens_of(n: int, vocab: int = 260, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocab, n).tolist()


def reference_logits(model: torch.nn.Module, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def engine_of(llama: Llama) -> NativeEngine:
    assert isinstance(llama.engine, NativeEngine)
    return llama.engine


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path, **VARIANTS[name])
    tokens = tokens_of(200)
    with load(str(tmp_path), format="f32", threads=2) as llama:
        ours = engine_of(llama).logits(tokens)
    error = np.abs(ours - reference_logits(model, tokens))
    assert error.max() < TOLERANCE, f"worst at {np.unravel_index(error.argmax(), error.shape)}"


def test_a_long_text_equals_transformers(tmp_path: Path) -> None:
    # Four attention chunks, and positions where rotary scaling matters.
    model = save_tiny(tmp_path, rope_parameters=LLAMA3_ROPE)
    tokens = tokens_of(900)
    with load(str(tmp_path), format="f32") as llama:
        assert np.abs(engine_of(llama).logits(tokens) - reference_logits(model, tokens)).max() < TOLERANCE


def test_shards_load_as_one_file_does(tmp_path: Path) -> None:
    save_tiny(tmp_path / "whole")
    save_tiny(tmp_path / "shards", shards="40KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    tokens = tokens_of(30)
    with load(str(tmp_path / "whole")) as a, load(str(tmp_path / "shards")) as b:
        assert np.array_equal(engine_of(a).logits(tokens), engine_of(b).logits(tokens))


def run_in_steps(path: Path, format: str, cuts: list[int], isa: str, n_threads: int) -> np.ndarray:
    """Logits of every position, the text cut into steps at `cuts`, straight through the native runner."""
    llama = load(str(path), format=format, threads=n_threads)
    engine = engine_of(llama)
    tokens = np.array(tokens_of(cuts[-1]), np.int32)
    before = _native.isa()
    _native.set_isa(isa)
    try:
        blocks = np.arange(-(-len(tokens) // _native.BLOCK_TOKENS), dtype=np.int32)[None]
        pieces = [
            engine._runner.logits(
                tokens[start:end],
                np.array([[end - start, start]], np.int64),
                blocks,
                np.arange(end - start, dtype=np.int64),
            )
            for start, end in zip([0, *cuts[:-1]], cuts, strict=True)
        ]
    finally:
        _native.set_isa(before)
        llama.close()
    return np.concatenate(pieces)


@pytest.mark.parametrize("format", ["f32", "bf16", "int8", "int4"])
def test_one_go_chunks_and_single_tokens_agree_on_every_path(format: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, **VARIANTS["odd sizes"])
    n = 300
    expected = run_in_steps(tmp_path, format, [n], "scalar", 1)
    for isa in [name for name, is_supported in _native.isas() if is_supported]:
        for n_threads, cuts in ((1, [n]), (2, [1, 8, 100, 101, 256, n]), (3, list(range(1, n + 1)))):
            ours = run_in_steps(tmp_path, format, cuts, isa, n_threads)
            assert np.array_equal(ours.view(np.int32), expected.view(np.int32)), (isa, n_threads, len(cuts))


@pytest.mark.parametrize("format", ["bf16", "int8", "int4"])
def test_a_written_checkpoint_gives_the_same_bits(format: str, tmp_path: Path) -> None:
    save_tiny(tmp_path / "in")
    source = open_checkpoint(tmp_path / "in")
    write_checkpoint(source, tmp_path / "out", format)
    tokens = tokens_of(40)
    with load(str(tmp_path / "in"), format=format) as a, load(str(tmp_path / "out")) as b:
        assert b.info.kind == "Puna"
        assert np.array_equal(engine_of(a).logits(tokens), engine_of(b).logits(tokens))
        assert a.tokenizer.encode("Hello") == b.tokenizer.encode("Hello")
        messages = [{"role": "user", "content": "Hi"}]
        assert a.encode_chat(messages) == b.encode_chat(messages)


@pytest.mark.parametrize("format", ["bf16", "int8", "int4"])
def test_each_format_equals_a_float64_model_of_the_same_weights(format: str, tmp_path: Path) -> None:
    """The engine's arithmetic against float64 with the same weights and inputs rounded as it rounds them."""
    model = save_tiny(tmp_path).double()
    packed = pack_checkpoint(open_checkpoint(tmp_path), format)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, matrix in packed.matrices.items():
            parameters[name].copy_(torch.from_numpy(matrix.to_float32()))
    rounded = (lambda x: x.bfloat16().double()) if format == "bf16" else fake_quantize
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    tokens = tokens_of(60)
    tokenizer = Tokenizer(open_checkpoint(tmp_path).vocabulary())
    engine = NativeEngine(packed, tokenizer, cache="f32")
    ours = engine.logits(tokens)
    engine.close()
    error = np.abs(ours - reference_logits(model, tokens))
    # Float32 sums, as above; but an input that lies at a tie may round the other way and move the logits
    # of its place by a step of its quantization.
    assert np.median(error) < TOLERANCE, float(np.median(error))
    assert error.max() < 0.1, float(error.max())


def fake_quantize(x: torch.Tensor) -> torch.Tensor:
    low = x.amin(-1, keepdim=True).clamp(max=0)
    high = x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1.1920929e-7)
    zero = (-128 - low / scale).round().clamp(-128, 127)
    return (((x / scale).round() + zero).clamp(-128, 127) - zero) * scale
