"""What other programs have no place for is refused by every target."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import add_parts, save_tiny

from puna.errors import CheckpointError
from puna.export.targets import TARGETS, write
from puna.models.open import open_checkpoint
from puna.nn.checkpoint import load
from puna.nn.packed import ModelCheckpoint

PARTS = {
    "a rotation before its down projections": {"has_down_rotation": True},
    "a matrix between its last norm and its head": {"has_output_rotation": True},
    "adaptors of rank 4": {"lora_rank": 4},
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("part", PARTS)
def test_parts_that_a_target_has_not(target: str, part: str, tmp_path: Path) -> None:
    save_tiny(tmp_path / "plain")
    model = add_parts(load(str(tmp_path / "plain")), **PARTS[part])
    checkpoint = ModelCheckpoint(model, open_checkpoint(tmp_path / "plain").vocabulary(), "tiny")
    with pytest.raises(CheckpointError, match=f"cannot say that a model has {part}; .*`puna quantize"):
        write(checkpoint, tmp_path / "out", target)
    assert not (tmp_path / "out").exists()
