"""Hugging Face folders, loaded by transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import LLAMA3_ROPE
from tests.unit.export.conftest import TOKENS
from transformers import AutoModelForCausalLM, AutoTokenizer

from puna.errors import CheckpointError
from puna.export.gguf import write_gguf
from puna.export.huggingface import write_huggingface
from puna.models.gguf import GgufCheckpoint
from puna.tokens import Tokenizer

TOLERANCE = 1e-4  # float32 sums in another order; logits are of size 1 to 20


@pytest.mark.parametrize("format", ["int4", "int8", "bf16"])
def test_transformers_loads_it(make: Any, logits: Callable[..., Any], tmp_path: Path, format: str) -> None:
    checkpoint = make(format, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=format == "int4")
    notes = write_huggingface(checkpoint, tmp_path / "hf")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert model.dtype == torch.bfloat16
    for name, parameter in model.named_parameters():
        values = torch.from_numpy(checkpoint.tensor(name).to_float32())
        assert torch.equal(parameter, values.bfloat16()), name
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)(
            torch.tensor([TOKENS])
        ).logits[0]
    assert np.abs(logits(tmp_path / "hf", "f32") - theirs.numpy()).max() < TOLERANCE
    text = "Llamas hum <|im_end|> abc"
    ours = Tokenizer(checkpoint.vocabulary()).encode(text)
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").encode(text, split_special_tokens=True) == ours
    assert model.generation_config.eos_token_id == [2]
    n_rounded = {"int4": "20", "int8": "21", "bf16": "5"}[format]
    assert notes == [f"numbers of {n_rounded} of {20 + (format != 'int4')} tensors are rounded to bfloat16"]


def test_float32_is_exact(make: Any, tmp_path: Path) -> None:
    checkpoint = make("int4")
    assert write_huggingface(checkpoint, tmp_path / "hf", dtype="F32") == []
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(parameter.detach(), checkpoint.tensor(name).to_float32())


def test_factors_of_a_gguf_file_get_their_name_back(make: Any, tmp_path: Path) -> None:
    rope = LLAMA3_ROPE | {"original_max_position_embeddings": 8192}
    checkpoint = make("bf16", rope_parameters=rope)
    write_gguf(checkpoint, tmp_path / "m.gguf")
    write_huggingface(GgufCheckpoint(tmp_path / "m.gguf"), tmp_path / "hf")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "hf").config.rope_parameters == rope
    write_gguf(make("f32", rope_parameters=LLAMA3_ROPE), tmp_path / "other.gguf")
    with pytest.raises(CheckpointError, match="no rotary scaling by factors"):
        write_huggingface(GgufCheckpoint(tmp_path / "other.gguf"), tmp_path / "other")
    assert not (tmp_path / "other").exists()
