"""Writing Hugging Face's and Meta's layouts, and what cannot be written."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.meta_layout import meta_pieces
from tests.tiny import add_parts, save_tiny

from puna.errors import CheckpointError, ConfigError, StoreError
from puna.models.architectures import LLAMA2_70B, LLAMA3_8B, LLAMA31_405B, LLAMA32_1B, LLAMA32_3B
from puna.models.config import ModelConfig
from puna.models.open import open_checkpoint
from puna.models.packed import write_checkpoint
from puna.nn.checkpoint import from_checkpoint, load, save_huggingface, save_meta
from puna.nn.grid import keep_grid

# What params.json cannot say otherwise: without a `rope_theta` of Llama 3, 4096 tokens.
AS_META = {"max_position_embeddings": 4096, "intermediate_size": 112, "rms_norm_eps": 1e-5}


@pytest.mark.parametrize("config", [LLAMA2_70B, LLAMA3_8B, LLAMA31_405B, LLAMA32_1B, LLAMA32_3B])
def test_params_json_of_every_generation_comes_back(config: ModelConfig) -> None:
    raw = config.to_meta()
    assert (
        ModelConfig.from_meta(raw, vocab_size=config.vocab_size, tied_embeddings=config.tied_embeddings)
        == config
    )


def test_params_json_is_metas_own_for_the_1b() -> None:
    raw = LLAMA32_1B.to_meta()
    assert (raw["ffn_dim_multiplier"], raw["multiple_of"], raw["use_scaled_rope"]) == (1.5, 256, True)


def test_what_params_json_cannot_say_is_refused() -> None:
    with pytest.raises(CheckpointError, match="cannot say `head_dim` 32"):
        replace(LLAMA32_1B, head_dim=32).to_meta()


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_metas_layout_is_the_reference_writers(dtype: torch.dtype, is_tied: bool, tmp_path: Path) -> None:
    reference = save_tiny(tmp_path / "in", tie_word_embeddings=is_tied, **AS_META)
    tokenizer = tmp_path / "tokenizer.model"
    tokenizer.write_bytes(b"YQ== 0\n")
    save_meta(load(str(tmp_path / "in"), dtype=dtype), tokenizer, tmp_path / "out")
    written = torch.load(tmp_path / "out" / "consolidated.00.pth", weights_only=True)
    weights = {name: weight.to(dtype) for name, weight in reference.state_dict().items()}
    [expected] = meta_pieces(weights, 4, 2)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], weight) for name, weight in expected.items())
    again = open_checkpoint(tmp_path / "out")
    assert again.config == open_checkpoint(tmp_path / "in").config
    for name in again.dtypes:
        assert torch.equal(torch.from_numpy(again.tensor(name).to_float32()), weights[name].float())
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == b"YQ== 0\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
def test_a_full_disk_is_told_of(tmp_path: Path) -> None:
    import resource
    import signal

    save_tiny(tmp_path / "in", **AS_META)
    source = open_checkpoint(tmp_path / "in")
    (tmp_path / "tokenizer.model").write_bytes(b"YQ== 0\n")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot be written: File too large"):
            save_meta(from_checkpoint(source), tmp_path / "tokenizer.model", tmp_path / "out")
        with pytest.raises(StoreError, match="cannot be written: File too large"):
            save_huggingface(from_checkpoint(source), source.vocabulary(), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "out").exists()


def test_integers_are_not_written_as_weights(tmp_path: Path) -> None:
    save_tiny(tmp_path / "in", **AS_META)
    source = open_checkpoint(tmp_path / "in")
    write_checkpoint(source, tmp_path / "int4", "int4")
    start = open_checkpoint(tmp_path / "int4")
    model = from_checkpoint(start)
    keep_grid(model, start)
    (tmp_path / "tokenizer.model").write_bytes(b"YQ== 0\n")
    with pytest.raises(ConfigError, match="counts its weights in steps of a grid"):
        save_huggingface(model, source.vocabulary(), tmp_path / "out")
    with pytest.raises(ConfigError, match="counts its weights in steps of a grid"):
        save_meta(model, tmp_path / "tokenizer.model", tmp_path / "out")


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    save_tiny(tmp_path / "in", **AS_META)
    source = open_checkpoint(tmp_path / "in")
    model, vocabulary = from_checkpoint(source), source.vocabulary()
    with pytest.raises(CheckpointError, match="does not exist; give the tokenizer"):
        save_meta(model, tmp_path / "none", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"got torch\.float64"):
        save_huggingface(model.double(), vocabulary, tmp_path / "out")
    rotated = add_parts(model.float(), has_down_rotation=True)
    with pytest.raises(CheckpointError, match="cannot say that a model has a rotation"):
        save_huggingface(rotated, vocabulary, tmp_path / "out")
    (tmp_path / "tokenizer.model").write_bytes(b"YQ== 0\n")
    with pytest.raises(CheckpointError, match="cannot say `has_down_rotation` True"):
        save_meta(rotated, tmp_path / "tokenizer.model", tmp_path / "out")
    (tmp_path / "tokenizer.model").unlink()
    (tmp_path / "there").mkdir()
    with pytest.raises(StoreError, match="exists already"):
        save_huggingface(model.float(), vocabulary, tmp_path / "there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "there"]
