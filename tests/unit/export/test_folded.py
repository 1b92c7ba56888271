"""Models with rotations and adaptors: in floats a plain Llama of the same function, in integers refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import ADDITIONS, add_parts, save_tiny
from tests.unit.export.conftest import TOKENS
from transformers import AutoModelForCausalLM

from puna.errors import CheckpointError
from puna.export.huggingface import write_huggingface
from puna.export.targets import write
from puna.models.checkpoint import Vocabulary
from puna.models.gguf import GgufCheckpoint
from puna.models.open import open_checkpoint
from puna.nn.checkpoint import load
from puna.nn.model import Transformer
from puna.nn.packed import ModelCheckpoint

TOLERANCE = 2e-4  # float32 sums in another order, of products of random rotations that are not orthogonal
PARTS: dict[str, dict[str, Any]] = {
    "a rotation before its down projections": {"has_down_rotation": True},
    "a matrix between its last norm and its head": {"has_output_rotation": True},
    "adaptors of rank 4": {"lora_rank": 4, "lora_scale": 2.0},
}


def model_with(parts: dict[str, Any], folder: Path, **changes: Any) -> Transformer:
    save_tiny(folder, vocab_size=264, hidden_size=64, **changes)
    return add_parts(load(str(folder)), **parts)


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("part", [*PARTS, "all"])
def test_transformers_gives_the_same_logits(
    part: str, is_tied: bool, tmp_path: Path, tiny_vocabulary: Vocabulary
) -> None:
    model = model_with(PARTS.get(part, ADDITIONS), tmp_path / "plain", tie_word_embeddings=is_tied)
    checkpoint = ModelCheckpoint(model, tiny_vocabulary, "tiny")
    notes = write_huggingface(checkpoint, tmp_path / "hf", dtype="F32")
    assert notes == [f"{addition}: multiplied into the weights" for addition in model.config.additions]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS]))[0].numpy()
        found = theirs(torch.tensor([TOKENS])).logits[0].numpy()
    assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("part", PARTS)
def test_integers_are_refused_with_the_way_out(
    part: str, tmp_path: Path, tiny_vocabulary: Vocabulary
) -> None:
    checkpoint = ModelCheckpoint(model_with(PARTS[part], tmp_path / "plain"), tiny_vocabulary, "tiny")
    for target in ("gguf", "compressed-tensors"):
        with pytest.raises(CheckpointError, match=f"cannot say that a model has {part}; .*--to huggingface"):
            write(checkpoint, tmp_path / "out", target)
        assert not (tmp_path / "out").exists()
    write(checkpoint, tmp_path / "hf", "huggingface")
    assert open_checkpoint(tmp_path / "hf").config.additions == ()


def test_gguf_takes_floats(tmp_path: Path, tiny_vocabulary: Vocabulary) -> None:
    checkpoint = ModelCheckpoint(model_with(ADDITIONS, tmp_path / "plain"), tiny_vocabulary, "tiny")
    write(checkpoint, tmp_path / "m.gguf", "gguf", "f32")
    write_huggingface(checkpoint, tmp_path / "hf", dtype="F32")
    ours, theirs = GgufCheckpoint(tmp_path / "m.gguf"), open_checkpoint(tmp_path / "hf")
    for name in theirs.dtypes:
        np.testing.assert_array_equal(ours.tensor(name).to_float32(), theirs.tensor(name).to_float32())
