"""Adaptors, loaded by PEFT on the base that lies beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tests.tiny import ADDITIONS
from tests.unit.export.conftest import TOKENS
from tests.unit.export.test_folded import PARTS, model_with
from transformers import AutoModelForCausalLM

from puna.errors import CheckpointError
from puna.export.targets import write
from puna.models.checkpoint import Vocabulary
from puna.nn.packed import ModelCheckpoint

ADAPTORS = PARTS["adaptors of rank 4"]


def rounded(model: torch.nn.Module) -> None:
    """Round to bfloat16, so that the file holds the very numbers."""
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's, of transformers
@pytest.mark.parametrize("parts", [ADAPTORS, ADDITIONS], ids=["adaptors", "all"])
def test_peft_gives_the_same_logits(
    parts: dict[str, Any], tmp_path: Path, tiny_vocabulary: Vocabulary
) -> None:
    model = model_with(parts, tmp_path / "plain")
    rounded(model)
    write(ModelCheckpoint(model, tiny_vocabulary, "tiny"), tmp_path / "out", "peft")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "base", dtype=torch.float32)
    tokens = torch.tensor([TOKENS])
    with torch.no_grad():
        expected = model(tokens)[0].numpy()
        alone = base(tokens).logits[0].numpy()
        found = PeftModel.from_pretrained(base, tmp_path / "out" / "adapter")(tokens).logits[0].numpy()
    # Rotated weights are rounded to bfloat16 once more, which adaptors alone need not be.
    tolerance = 1e-5 if parts is ADAPTORS else 0.03
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()
    assert np.abs(alone - expected).max() > 0.1 * np.abs(expected).max()


def test_a_base_of_bf16_keeps_the_adaptors_apart(tmp_path: Path, tiny_vocabulary: Vocabulary) -> None:
    model = model_with(ADAPTORS, tmp_path / "plain")
    source = ModelCheckpoint(model, tiny_vocabulary, "tiny")
    for format in ("auto", "bf16"):
        write(source, tmp_path / format, "peft", format)
    for name in ("base/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "bf16" / name).read_bytes() == (tmp_path / "auto" / name).read_bytes()


def test_a_model_without_adaptors_is_refused(make: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no adaptors.*--to huggingface"):
        write(make("int4"), tmp_path / "out", "peft")
    assert not (tmp_path / "out").exists()
