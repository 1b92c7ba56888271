"""Unfinished work: what it is kept for, what is refused, and what a killed process leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import save_tiny

from puna.errors import CheckpointError, ConfigError, StoreError
from puna.models.open import open_checkpoint
from puna.models.safetensors import write_safetensors
from puna.nn.checkpoint import from_checkpoint
from puna.nn.packed import ModelCheckpoint
from puna.quantize.work_folder import WorkFolder, identity


def test_what_is_saved_comes_back_in_its_type(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path / "work")
    folder.begin({"asked": (1, 2)})
    assert folder.load("state") is None
    values = torch.arange(-3, 3)
    types = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int8)
    kept = {str(dtype): values.to(dtype).reshape(2, 3) for dtype in types} | {"one": torch.tensor(2.0)}
    folder.save("state", kept, {"steps": 3})
    folder.begin({"asked": [1, 2]})
    about, found = folder.load("state")
    assert about == {"steps": 3}
    assert found.keys() == kept.keys()
    for name, tensor in kept.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_other_work_is_left_alone(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path)
    folder.begin({"rule": "signed", "seed": 1})
    folder.save("state", {}, {})
    with pytest.raises(ConfigError, match="holds an unfinished run with another length, rule; ask for the"):
        folder.begin({"rule": "search", "seed": 1, "length": 2})
    assert folder.has("state")


@pytest.mark.parametrize("left", ["", '{"rule":', "\xff"])
def test_a_damaged_record_names_the_folder_to_remove(left: str, tmp_path: Path) -> None:
    (tmp_path / "asked.json").write_text(left, encoding="latin-1")
    with pytest.raises(StoreError, match=r"asked\.json is damaged; remove .* to begin anew"):
        WorkFolder(tmp_path).begin({})


def test_a_process_killed_at_the_first_write_leaves_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, text: str, **_: object) -> None:
        with self.open("w") as file:
            file.write(text[:3])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            WorkFolder(tmp_path).begin({"rule": "signed"})
    WorkFolder(tmp_path).begin({"rule": "signed"})


@pytest.mark.parametrize("metadata", [{}, {"about": "{"}, {"about": "3"}])
def test_damaged_tensors_are_an_error(metadata: dict[str, str], tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path)
    folder.begin({})
    write_safetensors(tmp_path / "state.safetensors", [], metadata)
    with pytest.raises(CheckpointError, match=r"is damaged; remove .* to begin anew"):
        folder.load("state")


def test_a_model_in_memory_is_told_by_its_weights(tmp_path: Path) -> None:
    """Also where its name is that of a file."""
    save_tiny(tmp_path)
    files = open_checkpoint(tmp_path)
    model = from_checkpoint(files)
    for name in ("model", str(tmp_path)):
        before = identity(ModelCheckpoint(model, name=name))
        assert before == identity(ModelCheckpoint(model, name=name)) != identity(files)
        with torch.no_grad():
            model.model.norm.weight[3] += 1
        assert identity(ModelCheckpoint(model, name=name)) != before
