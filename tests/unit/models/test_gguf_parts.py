from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from puna.errors import CheckpointError
from puna.models.gguf import GgufCheckpoint
from puna.models.open import open_checkpoint


@pytest.fixture
def whole(tmp_path: Path, write_gguf: Any) -> Path:
    return write_gguf(tmp_path / "whole.gguf", "Q4_0")


def split(whole: Path, folder: Path, n_parts: int = 3, **changes: Any) -> list[Path]:
    """As llama.cpp splits: all keys in the first part, tensors in order, `split.*` in each."""
    reader = gguf.GGUFReader(whole)
    folder.mkdir(exist_ok=True)
    tensors = list(reader.tensors)
    settings = {"count": n_parts, "no": None, "tensors": len(tensors), "repeat": False} | changes
    paths = []
    for number in range(n_parts):
        path = folder / f"m-{number + 1:05d}-of-{n_parts:05d}.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        if number == 0:
            for key, field in reader.fields.items():
                if not key.startswith("GGUF.") and key != "general.architecture":
                    kinds = field.types
                    writer.add_key_value(
                        key, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None
                    )
        writer.add_uint16("split.no", number if settings["no"] is None else settings["no"])
        writer.add_uint16("split.count", settings["count"])
        writer.add_int32("split.tensors.count", settings["tensors"])
        for tensor in tensors if settings["repeat"] else tensors[number::n_parts]:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths


@pytest.mark.parametrize("n_parts", [2, 3])
def test_parts_equal_the_whole(whole: Path, tmp_path: Path, n_parts: int) -> None:
    expected = GgufCheckpoint(whole)
    parts = split(whole, tmp_path / "parts", n_parts)
    for given in [*parts, tmp_path / "parts"]:
        checkpoint = open_checkpoint(given)
        assert (checkpoint.config, checkpoint.dtypes) == (expected.config, expected.dtypes)
        for name in expected.dtypes:
            np.testing.assert_array_equal(checkpoint.tensor(name).data, expected.tensor(name).data)


def _rename(name: str) -> Callable[[list[Path]], Path]:
    return lambda paths: paths[0].rename(paths[0].with_name(name))


def _swap(paths: list[Path]) -> Path:
    paths[1].rename(paths[1].with_name("x"))
    paths[2].rename(paths[1])
    paths[1].with_name("x").rename(paths[2])
    return paths[0]


def _remove(paths: list[Path]) -> Path:
    paths[2].unlink()
    return paths[0]


BAD: dict[str, tuple[dict[str, Any], Callable[[list[Path]], Path], str]] = {
    "a part is missing": ({}, _remove, "m-00003-of-00003.gguf cannot be read: No such file"),
    "another name": ({}, _rename("model.gguf"), "is one of 3 parts of a model, which Puna finds by names"),
    "a name of four": ({}, _rename("m-00001-of-00004.gguf"), "is one of 3 parts of a model"),
    "two parts swapped": ({}, _swap, "needs to be part 1 (from 0) of 3, it says (2, 3)"),
    "all the first part": ({"no": 0}, lambda p: p[0], "needs to be part 1 (from 0) of 3, it says (0, 3)"),
    "a count of 65535": ({"count": 65535}, lambda p: p[0], "is one of 65535 parts"),
    "tensors in each": ({"repeat": True}, lambda p: p[0], "which an earlier part has too"),
    "a tensor is missing": ({"tensors": 22}, lambda p: p[0], "the parts need 22 tensors together, got 21"),
}


@pytest.mark.parametrize("case", BAD)
def test_parts_that_are_no_whole_model(whole: Path, tmp_path: Path, case: str) -> None:
    changes, damage, words = BAD[case]
    path = damage(split(whole, tmp_path / "parts", **changes))
    with pytest.raises(CheckpointError) as caught:
        GgufCheckpoint(path)
    assert words in str(caught.value)
