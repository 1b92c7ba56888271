"""The int8 cache against transformers with a cache that rounds by the rule of docs/formats.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import VARIANTS, save_tiny
from transformers import DynamicCache

from puna.engine.native import NativeEngine
from puna.models.open import open_checkpoint
from puna.models.packed import pack_checkpoint
from puna.tokens import Tokenizer


def rounded(x: torch.Tensor, group: int) -> torch.Tensor:
    """Every `group` numbers of the last axis to the nearest of 255 steps around zero."""
    parts = x.split(group, dim=-1)
    scales = [part.abs().amax(-1, keepdim=True) / 127 for part in parts]
    return torch.cat([(part / scale).round() * scale for part, scale in zip(parts, scales, strict=True)], -1)


def update_rounded(self: Any, keys: torch.Tensor, values: torch.Tensor, *others: Any, **more: Any) -> Any:
    return super(DynamicCache, self).update(
        rounded(keys, 32), rounded(values, values.shape[-1]), *others, **more
    )


@pytest.mark.parametrize("variant", ["mha", "gqa 5", "odd sizes", "wide head"])
def test_logits_are_those_of_a_cache_that_rounds(
    tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_tiny(tmp_path, **VARIANTS[variant])
    checkpoint = open_checkpoint(tmp_path)
    tokens = np.random.default_rng(0).integers(0, 256, 300).tolist()
    with torch.no_grad():
        plain = model(torch.tensor([tokens])).logits[0].numpy()
        monkeypatch.setattr(DynamicCache, "update", update_rounded)
        exact = model(torch.tensor([tokens])).logits[0].numpy()
    packed = pack_checkpoint(checkpoint, "f32")
    engine = NativeEngine(packed, Tokenizer(checkpoint.vocabulary()), cache="int8")
    found = np.asarray(engine.logits(tokens))
    engine.close()
    # A number that lies between two steps may be rounded the other way: that is rare, and one step.
    error, rounding = np.abs(found - exact), np.abs(plain - exact)
    assert error.mean() < 0.05 * rounding.mean()
    assert error.max() < rounding.max()
