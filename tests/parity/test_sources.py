"""The same weights in every layout that is read give the same logits, bit for bit, and transformers' own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.meta_layout import interleaved, meta_pieces, write_meta
from transformers import LlamaConfig, LlamaForCausalLM

from puna.engine.native import NativeEngine
from puna.llama import load
from puna.models.open import open_checkpoint
from puna.models.packed import write_checkpoint
from puna.models.tiktoken_vocabulary import LLAMA3_SPECIAL_TOKENS
from puna.models.tokenizer_json import BYTE_CHARACTERS
from puna.models.tokenizer_model import read_tokenizer_model

TOLERANCE = 1e-4  # float32 sums in another order; logits are of size 1 to 20
N_HEADS, N_KV_HEADS, VOCAB_SIZE = 4, 2, 512
PARAMS = {
    "dim": 64, "n_layers": 2, "n_heads": N_HEADS, "n_kv_heads": N_KV_HEADS, "vocab_size": VOCAB_SIZE,
    "multiple_of": 16, "ffn_dim_multiplier": 0.7, "norm_eps": 1e-5, "rope_theta": 500000.0,
}  # fmt: skip
HF = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": N_HEADS, "num_key_value_heads": N_KV_HEADS, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "attn_implementation": "eager",
}  # fmt: skip
SCALED = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip
PLAIN = {"rope_type": "default", "rope_theta": 500000.0}


def make_model(dtype: torch.dtype, rope: dict[str, Any], tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(**HF | {"rope_parameters": rope, "tie_word_embeddings": tied})
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    return model.to(dtype)


def weights_of(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def meta(folder: Path, model: LlamaForCausalLM, n_files: int = 1, llama2: bool = False) -> Path:
    pieces = meta_pieces(weights_of(model), N_HEADS, N_KV_HEADS, n_files, llama2=llama2)
    is_scaled = model.config.rope_parameters["rope_type"] == "llama3"
    return write_meta(folder, pieces, PARAMS | {"use_scaled_rope": is_scaled})


def _add_tokenizer(folder: Path) -> None:
    write_meta(folder / "meta", [], PARAMS)
    vocabulary = read_tokenizer_model(folder / "meta" / "tokenizer.model")
    (folder / "tokenizer.json").write_bytes(vocabulary.tokenizer_json.to_bytes())


def safetensors(folder: Path, model: LlamaForCausalLM) -> Path:
    model.save_pretrained(folder)
    _add_tokenizer(folder)
    return folder


def pytorch_bin(folder: Path, model: LlamaForCausalLM) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    _add_tokenizer(folder)
    return folder


def gguf_file(folder: Path, model: LlamaForCausalLM) -> Path:
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV_HEADS)
    writer.add_feed_forward_length(128)
    writer.add_context_length(8192)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_vocab_size(VOCAB_SIZE)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    # The writer leaves an empty list of merges out, so there is one in place of the last reserved token.
    writer.add_token_list([*BYTE_CHARACTERS, *LLAMA3_SPECIAL_TOKENS[:-1], "zq"])
    writer.add_token_types([1] * 256 + [3] * 255 + [1])
    writer.add_token_merges(["z q"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, weight in weights_of(model).items():
        if "q_proj" in name:
            weight = interleaved(weight, N_HEADS)
        if "k_proj" in name:
            weight = interleaved(weight, N_KV_HEADS)
        theirs = names.get_name(name.removesuffix(".weight"))
        data = weight.view(torch.uint8) if weight.dtype == torch.bfloat16 else weight
        kind = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}[weight.dtype]
        if weight.ndim == 1:
            data, kind = weight.float(), "F32"
        writer.add_tensor(f"{theirs}.weight", data.numpy(), raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


SOURCES: dict[str, Callable[[Path, LlamaForCausalLM], Path]] = {
    "Meta": meta,
    "Meta, 2 files": lambda folder, model: meta(folder, model, 2),
    "Meta, 2 files as Llama 2": lambda folder, model: meta(folder, model, 2, llama2=True),
    "safetensors": safetensors,
    "pytorch_model.bin": pytorch_bin,
    "GGUF": gguf_file,
}
TOKENS = np.random.default_rng(0).integers(0, VOCAB_SIZE, 200).tolist()


def logits_of(path: Path, format: str) -> NDArray[np.float32]:
    with load(str(path), format=format, threads=2) as llama:
        assert isinstance(llama.engine, NativeEngine)
        assert llama.tokenizer.encode("Hi <|eot_id|>")[-10:] == [ord(c) for c in "<|eot_id|>"]
        return llama.engine.logits(TOKENS)


def assert_same(paths: dict[str, Path], format: str) -> NDArray[np.float32]:
    logits = {name: logits_of(path, format) for name, path in paths.items()}
    expected = logits["safetensors"]
    for name, values in logits.items():
        np.testing.assert_array_equal(values.view(np.int32), expected.view(np.int32), err_msg=name)
    return expected


def transformers_logits(model: LlamaForCausalLM) -> NDArray[np.float32]:
    # A new one: `model.to(dtype)` has rounded the rotary table too.
    exact = LlamaForCausalLM(model.config).eval()
    exact.load_state_dict({name: tensor.float() for name, tensor in model.state_dict().items()})
    with torch.no_grad():
        return exact.float()(torch.tensor([TOKENS])).logits[0].numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_source_gives_the_same_logits(tmp_path: Path, dtype: torch.dtype) -> None:
    model = make_model(dtype, PLAIN)
    paths = {name: write(tmp_path / name, model) for name, write in SOURCES.items()}
    logits = assert_same(paths, "f32")
    assert np.abs(logits - transformers_logits(model)).max() < TOLERANCE


@pytest.mark.parametrize("format", ["auto", "int8", "int4"])
def test_every_source_quantizes_to_the_same_weights(tmp_path: Path, format: str) -> None:
    model = make_model(torch.bfloat16, PLAIN)
    assert_same({name: write(tmp_path / name, model) for name, write in SOURCES.items()}, format)


def test_what_is_converted_gives_the_same_logits(tmp_path: Path) -> None:
    model = make_model(torch.bfloat16, PLAIN)
    for name in ("Meta, 2 files", "pytorch_model.bin", "GGUF"):
        source = SOURCES[name](tmp_path / name, model)
        write_checkpoint(open_checkpoint(source), tmp_path / f"{name} packed", "int8")
        converted = logits_of(tmp_path / f"{name} packed", "auto")
        np.testing.assert_array_equal(converted, logits_of(source, "int8"), err_msg=name)


@pytest.mark.parametrize("tied", [True, False])
def test_scaled_rotary_embeddings(tmp_path: Path, tied: bool) -> None:
    """Of Meta's and Hugging Face's layouts; a GGUF file stores the scaled numbers rounded to float32."""
    model = make_model(torch.float32, SCALED, tied)
    paths = {name: SOURCES[name](tmp_path / name, model) for name in ("Meta", "Meta, 2 files", "safetensors")}
    logits = assert_same(paths, "f32")
    assert np.abs(logits - transformers_logits(model)).max() < TOLERANCE
