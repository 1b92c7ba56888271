"""Meta's quantized layout, to it and from it; reader and writer of the layout have tests of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.meta_layout import quantized_piece, write_meta

from puna.errors import CheckpointError
from puna.export.targets import write
from puna.models.checkpoint import Checkpoint
from puna.models.config import ModelConfig
from puna.models.gguf import GgufCheckpoint
from puna.models.open import open_checkpoint
from puna.models.packed import write_checkpoint

PARAMS = {
    "dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 520, "multiple_of": 16,
    "ffn_dim_multiplier": 0.75, "norm_eps": 1e-5, "rope_theta": 500000.0, "use_scaled_rope": True,
}  # fmt: skip
SCHEME = {"scheme": "int4_weight_int8_dynamic_activation", "group_size": 32}


def official(folder: Path, **params: Any) -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    all_params = PARAMS | {"quantization_args": SCHEME} | params
    config = ModelConfig.from_meta(all_params, vocab_size=520, tied_embeddings=False)
    state = quantized_piece(config)
    return open_checkpoint(write_meta(folder, [state], all_params)), state


@pytest.mark.parametrize(
    "params", [{"quantization_args": SCHEME | {"spinquant": True}}, {"lora_args": {"rank": 16, "scale": 2.0}}]
)
def test_through_a_puna_checkpoint_and_back(params: dict[str, Any], tmp_path: Path) -> None:
    source, state = official(tmp_path / "official", **params)
    write_checkpoint(source, tmp_path / "puna", "auto")
    assert write(open_checkpoint(tmp_path / "puna"), tmp_path / "out", "meta") == []
    again = torch.load(tmp_path / "out" / "consolidated.00.pth", weights_only=True)
    assert set(again) == set(state)
    for name, tensor in state.items():
        assert torch.equal(again[name], tensor), name
        assert again[name].dtype == tensor.dtype, name


def test_what_is_not_quantized_is_refused(make: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="quantize"):
        write(make("bf16"), tmp_path / "out", "meta")
    assert not (tmp_path / "out").exists()


def test_gguf_of_official_files_keeps_the_integers(tmp_path: Path) -> None:
    source, _ = official(tmp_path / "official")
    notes = write(source, tmp_path / "m.gguf", "gguf")
    assert notes[1:] == ["the float32 scales of 14 matrices are rounded to Q4_0's float16"]
    written = GgufCheckpoint(tmp_path / "m.gguf")
    for name, dtype in source.dtypes.items():
        if dtype != "int4_group32_f32":
            continue
        integers, scales = source.packed(name).to_integers()  # type: ignore[attr-defined]
        groups = written.tensor(name).to_groups()
        assert groups is not None
        np.testing.assert_array_equal(groups[0], integers)
        np.testing.assert_array_equal(groups[1], scales.astype(np.float16))
