"""GGUF files, read back with the gguf package and with our own reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from numpy.typing import NDArray
from tests.tiny import LLAMA3_ROPE
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from puna.errors import CheckpointError, StoreError
from puna.export.gguf import write_gguf
from puna.models.checkpoint import Checkpoint, Tensor
from puna.models.gguf import GgufCheckpoint
from puna.models.packed import PackedAs

Logits = Callable[..., NDArray[np.float32]]
NAMES = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)


def stored(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def their_name(name: str) -> str:
    return f"{NAMES.get_name(name.removesuffix('.weight'))}.weight"


def permuted(weight: NDArray[Any], n_heads: int) -> NDArray[Any]:
    """llama.cpp's own conversion of q and k."""
    halves = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(weight.shape)


def expected(checkpoint: Checkpoint, name: str) -> NDArray[np.float32]:
    values = checkpoint.tensor(name).to_float32()
    if "q_proj" in name:
        return permuted(values, checkpoint.config.n_heads)
    return permuted(values, checkpoint.config.n_kv_heads) if "k_proj" in name else values


@pytest.mark.parametrize(
    ("format", "kind"), [("int4", "Q4_0"), ("int8", "Q8_0"), ("bf16", "BF16"), ("f32", "F32")]
)
def test_the_library_reads_the_same_numbers(make: Any, tmp_path: Path, format: str, kind: str) -> None:
    checkpoint = make(format)
    notes = write_gguf(checkpoint, tmp_path / "m.gguf")
    tensors = stored(tmp_path / "m.gguf")
    assert set(tensors) == {their_name(name) for name in checkpoint.config.tensor_shapes()}
    for name, shape in checkpoint.config.tensor_shapes().items():
        tensor = tensors[their_name(name)]
        values = dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        if len(shape) == 1:
            assert tensor.tensor_type.name == "F32"
        elif ".layers." in name:
            assert tensor.tensor_type.name == kind
        if checkpoint.dtypes[name] == "int8_channel":
            assert tensor.tensor_type.name == "Q8_0"
            np.testing.assert_allclose(values, expected(checkpoint, name), rtol=2.0**-11)
            integers = tensor.data.reshape(shape[0], -1, 34)[:, :, 2:].view(np.int8).reshape(shape)
            np.testing.assert_array_equal(integers, checkpoint.packed(name).to_integers()[0])
        else:
            np.testing.assert_array_equal(values, expected(checkpoint, name), err_msg=name)
    assert len(notes) == (format == "int4")
    if notes:
        assert notes[0].startswith("model.embed_tokens.weight, lm_head.weight: the 8-bit integers stay")


@pytest.mark.parametrize("format", ["int8", "bf16", "f32"])
def test_the_engine_gives_the_same_bits(make: Any, logits: Logits, tmp_path: Path, format: str) -> None:
    checkpoint = make(format, tie_word_embeddings=format == "int8")
    write_gguf(checkpoint, tmp_path / "m.gguf")
    np.testing.assert_array_equal(logits(tmp_path / "m.gguf"), logits(checkpoint.path))


def test_four_bits_give_the_same_bits(make: Any, logits: Logits, tmp_path: Path) -> None:
    """With tables that GGUF can say; those of a row each are rounded, and the file then stays what it is."""
    write_gguf(make("int4"), tmp_path / "first.gguf")
    write_gguf(GgufCheckpoint(tmp_path / "first.gguf"), tmp_path / "second.gguf")
    packed = PackedAs(GgufCheckpoint(tmp_path / "first.gguf"), "auto")
    assert set(packed.dtypes.values()) == {"F32", "int4_group32", "int8_group32"}
    assert write_gguf(packed, tmp_path / "third.gguf") == []
    first = logits(tmp_path / "first.gguf")
    for name in ("second", "third"):
        np.testing.assert_array_equal(logits(tmp_path / f"{name}.gguf"), first)


def test_types_without_one_of_ours_are_copied(default_gguf: Path, tmp_path: Path) -> None:
    assert write_gguf(GgufCheckpoint(default_gguf), tmp_path / "m.gguf") == []
    before, after = stored(default_gguf), stored(tmp_path / "m.gguf")
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert after[name].tensor_type == tensor.tensor_type
        np.testing.assert_array_equal(after[name].data, tensor.data)


def test_settings(make: Any, tmp_path: Path) -> None:
    write_gguf(make("bf16"), tmp_path / "m.gguf")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    values = {
        name: fields[f"llama.{name}"].contents()
        for name in ("block_count", "context_length", "attention.head_count_kv", "rope.dimension_count")
    }
    assert values == {
        "block_count": 2,
        "context_length": 1024,
        "attention.head_count_kv": 2,
        "rope.dimension_count": 16,
    }
    assert fields["llama.attention.layer_norm_rms_epsilon"].contents() == pytest.approx(1e-6)
    assert fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_BF16


def test_scaled_rotary_frequencies(make: Any, tmp_path: Path) -> None:
    write_gguf(make("bf16", rope_parameters=LLAMA3_ROPE), tmp_path / "m.gguf")
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, rope_parameters=LLAMA3_ROPE)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 500000.0 ** -(torch.arange(8, dtype=torch.float64) / 8)
    factors = stored(tmp_path / "m.gguf")["rope_freqs.weight"].data
    np.testing.assert_allclose(factors, plain / scaled.double(), rtol=1e-6)
    frequencies = GgufCheckpoint(tmp_path / "m.gguf").config.rope_frequencies()
    np.testing.assert_allclose(frequencies, scaled, rtol=1e-6)


def test_linear_rotary_scaling(make: Any, tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    checkpoint = make("bf16", rope_parameters=rope)
    write_gguf(checkpoint, tmp_path / "m.gguf")
    assert GgufCheckpoint(tmp_path / "m.gguf").config.rope_scaling == checkpoint.config.rope_scaling


def test_rows_that_are_no_whole_groups_are_refused(make: Any, tmp_path: Path) -> None:
    checkpoint = make("int8", num_attention_heads=4, head_dim=10)
    with pytest.raises(
        CheckpointError, match=r"Q8_0 needs rows of a multiple of 32 elements, '.*o_proj.*' has 40"
    ):
        write_gguf(checkpoint, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_a_file_that_is_there_stays(make: Any, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("mine")
    with pytest.raises(StoreError, match=r"m\.gguf exists already"):
        write_gguf(make("bf16"), tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_text() == "mine"


def test_a_full_disk_is_told_before_the_work(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make("bf16")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 1000})())
    with pytest.raises(StoreError, match="bytes more, the disk has 1000 free"):
        write_gguf(checkpoint, tmp_path / "new" / "m.gguf")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_source_that_breaks_leaves_nothing(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make("bf16")
    read = checkpoint.tensor

    def broken(name: str) -> Tensor:
        if name == "model.norm.weight":
            raise CheckpointError("cut off")
        return read(name)

    monkeypatch.setattr(checkpoint, "tensor", broken)
    with pytest.raises(CheckpointError, match="cut off"):
        write_gguf(checkpoint, tmp_path / "new" / "m.gguf")
    assert list((tmp_path / "new").iterdir()) == []
