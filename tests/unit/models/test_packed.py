"""Packed checkpoints: what gets which format, and what a damaged or foreign folder is answered with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import save_tiny

from puna.errors import CheckpointError, ConfigError, StoreError
from puna.models.checkpoint import Checkpoint, Tensor
from puna.models.local import open_model
from puna.models.new_file import new_file
from puna.models.open import open_checkpoint
from puna.models.packed import pack_checkpoint, weight_format, write_checkpoint
from puna.models.safetensors import NewTensor, SafetensorsFile, write_safetensors

UP, HEAD, TABLE = "model.layers.0.mlp.up_proj.weight", "lm_head.weight", "model.embed_tokens.weight"

ADAPTOR, ROTATION = "model.layers.0.mlp.up_proj.lora_B.weight", "model.norm.rotation.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return open_checkpoint(folder)


@pytest.fixture
def packed(tiny: Checkpoint, tmp_path: Path) -> Path:
    write_checkpoint(tiny, tmp_path / "packed", "int4")
    return tmp_path / "packed"


@pytest.mark.parametrize(
    ("name", "dtype", "wanted", "expected"),
    [
        (UP, "F32", "auto", "f32"),
        (UP, "BF16", "auto", "bf16"),
        (UP, "F16", "auto", "bf16"),
        (UP, "Q4_0", "auto", "int4_group32"),
        (UP, "Q8_0", "auto", "int8_group32"),
        (UP, "Q4_1", "auto", "int8_group32"),
        (UP, "Q6_K", "auto", "int8_group32"),
        (TABLE, "int8_channel", "auto", "int8_channel"),
        (UP, "BF16", "int4", "int4_group32"),
        (HEAD, "BF16", "int4", "int8_channel"),
        (TABLE, "Q4_0", "int4", "int8_channel"),
        (HEAD, "BF16", "int8", "int8_group32"),
        (UP, "Q4_0", "f32", "f32"),
        (UP, "F32", "bf16", "bf16"),
        (UP, "int4_group32_f32", "auto", "int4_group32_f32"),
        (UP, "int4_group32_f32", "int4", "int4_group32_f32"),
        (UP, "int4_group32_f32", "int8", "int8_group32"),
        (ADAPTOR, "F32", "auto", "f32"),
        (ADAPTOR, "BF16", "int4", "bf16"),
        (ADAPTOR, "F32", "int8", "bf16"),
        (ADAPTOR, "Q6_K", "auto", "bf16"),
        (ROTATION, "bf16", "int4", "bf16"),
        (ROTATION, "BF16", "f32", "f32"),
    ],
)
def test_formats(name: str, dtype: str, wanted: str, expected: str) -> None:
    assert weight_format(name, dtype, wanted) == expected


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="format 'int44' is unknown; did you mean 'int4'"):
        weight_format(UP, "F32", "int44")


class _Stored:
    """A checkpoint of one GGUF block type, its tensors random bytes."""

    def __init__(self, tiny: Checkpoint, dtype: str) -> None:
        self.path, self.kind, self.config = Path("x"), "GGUF", tiny.config
        self.dtypes = {
            name: dtype if len(shape) == 2 else "F32" for name, shape in tiny.config.tensor_shapes().items()
        }
        self._tiny = tiny

    def tensor(self, name: str) -> Tensor:
        shape = self.config.tensor_shapes()[name]
        if len(shape) == 1:
            return self._tiny.tensor(name)
        rng = np.random.default_rng(len(name))
        width = {"Q4_0": 18, "Q8_0": 34}[self.dtypes[name]]
        blocks = rng.integers(0, 256, (shape[0], shape[1] // 32, width), np.uint8)
        scale = rng.uniform(0.01, 0.1, blocks.shape[:2]).astype(np.float16)
        blocks[..., :2] = scale[..., None].view(np.uint8)
        return Tensor(name, self.dtypes[name], shape, blocks.reshape(shape[0], -1))

    def vocabulary(self) -> Any:
        return self._tiny.vocabulary()


@pytest.mark.parametrize("dtype", ["Q4_0", "Q8_0"])
def test_q4_0_and_q8_0_are_kept_without_loss(dtype: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, hidden_size=64, intermediate_size=96)
    source = _Stored(open_checkpoint(tmp_path), dtype)
    model = pack_checkpoint(source)
    for name, matrix in model.matrices.items():
        assert np.array_equal(matrix.to_float32(), source.tensor(name).to_float32()), name


def test_a_packed_folder_is_what_hugging_face_tools_expect(packed: Path, tiny: Checkpoint) -> None:
    from safetensors import safe_open
    from transformers import AutoConfig, AutoTokenizer

    assert AutoConfig.from_pretrained(packed).hidden_size == tiny.config.dim
    assert AutoTokenizer.from_pretrained(packed).encode("Hi", add_special_tokens=False) == [
        AutoTokenizer.from_pretrained(tiny.path).convert_tokens_to_ids(c) for c in "Hi"
    ]
    with safe_open(packed / "model.safetensors", "np") as file:
        assert set(file.keys()) == set(tiny.config.tensor_shapes())


def test_every_matrix_begins_at_a_cache_line(packed: Path) -> None:
    file = SafetensorsFile(packed / "model.safetensors")
    assert all(entry.start % 64 == 0 for entry in file.entries.values() if entry.dtype == "U8")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 250, "x\0y"])
def test_a_name_that_no_file_can_have_is_told(name: str, tiny: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be (made|written): "):
        write_checkpoint(tiny, tmp_path / name, "int4")
    with pytest.raises(StoreError, match=r"cannot be (made|written): "), new_file(tmp_path / name, 1) as path:
        path.touch()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_nothing_is_left_half_written(tiny: Checkpoint, packed: Path) -> None:
    with pytest.raises(StoreError, match="exists already"):
        write_checkpoint(tiny, packed, "bf16")

    class Broken(_Stored):
        def tensor(self, name: str) -> Tensor:
            if name == HEAD:
                raise CheckpointError("tensor is damaged")
            return self._tiny.tensor(name)

    broken = Broken(tiny, "F32")
    with pytest.raises(CheckpointError, match="damaged"):
        write_checkpoint(broken, packed.parent / "other", "int4")
    assert [path.name for path in packed.parent.iterdir()] == ["packed"]


def test_weights_that_are_not_finite_are_refused_by_name(tiny: Checkpoint) -> None:
    class Infinite(_Stored):
        def tensor(self, name: str) -> Tensor:
            values = self._tiny.tensor(name).to_float32().copy()
            values.flat[3] = np.inf
            return Tensor(name, "F32", values.shape, values.view(np.uint8))

    with pytest.raises(CheckpointError, match=r"embed_tokens.*: cannot quantize a weight that is not"):
        pack_checkpoint(Infinite(tiny, "F32"), "int4")


def edit_config(folder: Path, **puna: Any) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw["puna"] = {**raw["puna"], **puna}
    (folder / "config.json").write_text(json.dumps(raw))


def rewrite(folder: Path, change: str, formats: object = None) -> None:
    """Write the weights again: one tensor renamed, cut, or the table of formats replaced."""
    old = SafetensorsFile(folder / "model.safetensors")
    data = {name: (entry, old.data(name).copy()) for name, entry in old.entries.items()}
    tensors = []
    for name, (entry, contents) in data.items():
        shape = entry.shape
        if name == UP and change == "cut":
            contents, shape = contents[:-64], (entry.shape[0] - 64,)
        new_name = "model.surprise" if name == UP and change == "rename" else name
        tensors.append(NewTensor(new_name, entry.dtype, shape, lambda contents=contents: contents))
    metadata = dict(old.metadata)
    if change == "formats":
        metadata["puna.formats"] = json.dumps(formats) if not isinstance(formats, str) else formats
    write_safetensors(folder / "model.safetensors", tensors, metadata)


@pytest.mark.parametrize("layout", [0, 2, "1", None, [1]])
def test_another_layout_is_refused(packed: Path, layout: Any) -> None:
    edit_config(packed, layout=layout)
    with pytest.raises(CheckpointError, match="this version reads layout 1; convert the original"):
        open_checkpoint(packed)


def test_damaged_weights_are_refused(packed: Path, tiny: Checkpoint) -> None:
    n_bytes = SafetensorsFile(packed / "model.safetensors").data(UP).nbytes
    rewrite(packed, "cut")
    with pytest.raises(CheckpointError, match=rf"needs {n_bytes} bytes as int4_group32, got {n_bytes - 64}"):
        open_checkpoint(packed)
    rewrite(packed, "rename")
    with pytest.raises(CheckpointError, match="1 tensors are missing"):
        open_checkpoint(packed)


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ("{", "no readable `puna.formats`"),
        ("[" * 5000, "no readable `puna.formats`"),
        ("1" * 5000, "no readable `puna.formats`"),
        ([1], "must map tensor names to formats"),
        ({UP: 4}, "must map tensor names to formats"),
        ({UP: "int9"}, "weight format 'int9' is unknown|weight format '' is unknown"),
        ({}, "weight format '' is unknown"),
    ],
)
def test_a_bad_table_of_formats_is_refused(packed: Path, formats: object, message: str) -> None:
    rewrite(packed, "formats", formats)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(packed)


def test_half_a_character_in_a_template_is_kept(tmp_path: Path) -> None:
    save_tiny(tmp_path / "tiny")
    settings = json.loads((tmp_path / "tiny/tokenizer_config.json").read_text())
    settings["chat_template"] = "a\ud800\u00e9"
    (tmp_path / "tiny/tokenizer_config.json").write_text(json.dumps(settings))
    write_checkpoint(open_checkpoint(tmp_path / "tiny"), tmp_path / "out", "f32")
    assert open_checkpoint(tmp_path / "out").vocabulary().chat_template == "a\ud800\u00e9"


def test_a_disk_without_room_is_seen_before_packing(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(matrix.data.nbytes for matrix in pack_checkpoint(tiny, "int8").matrices.values())
    norms = sum(norm.nbytes for norm in pack_checkpoint(tiny, "int8").norms.values())
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5}))
    with pytest.raises(
        StoreError, match=f"needs {needed + norms} bytes more, the disk has 5 free; make room"
    ):
        write_checkpoint(tiny, tmp_path / "out", "int8", pytest.fail)
    assert list(tmp_path.iterdir()) == []


def test_a_path_is_used_in_place(tiny: Checkpoint) -> None:
    found = open_model(str(tiny.path), "int4")
    assert found.checkpoint.path == tiny.path
    assert found.chat_format is None
    assert found.name == tiny.path.name


def test_a_model_of_the_store_is_packed_once_and_again_where_that_is_damaged(
    default_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from puna.models import store
    from puna.models.catalogue import DEFAULT_MODEL, resolve

    monkeypatch.setenv("PUNA_HOME", str(tmp_path))
    row = resolve(DEFAULT_MODEL)
    folder = tmp_path / "models" / row.name
    folder.mkdir(parents=True)
    (folder / default_gguf.name).symlink_to(default_gguf)
    packed = store.packed_folder(row.name) / "auto"
    told: list[tuple[int, int]] = []
    first = open_model(row.name, "auto", packing=lambda *progress: told.append(progress))
    assert first.checkpoint.path == packed
    assert first.chat_format == row.prompt_format == "template"
    assert told[-1] == (272, 272)
    made = packed.stat().st_mtime_ns
    assert open_model("smollm2", "auto").checkpoint.kind == "Puna"
    assert packed.stat().st_mtime_ns == made
    (packed / "model.safetensors").write_bytes(b"damaged")
    killed = packed.parent / ".auto.x.part"
    killed.mkdir()
    (killed / "model.safetensors").write_bytes(b"half")
    assert open_model(row.name, "auto").checkpoint.dtypes == first.checkpoint.dtypes
    assert not killed.exists()
    store.remove(row.name)
    assert not packed.parent.exists()
