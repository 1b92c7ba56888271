"""Puna's own folders: the config, and the header that says how matrices are packed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fuzz.fuzz_config import ADDED as CONFIG
from tests.fuzz.harness import main

from puna import _native
from puna.models.open import open_checkpoint

MATRICES = [name for name, shape in CONFIG.tensor_shapes().items() if len(shape) == 2]


def seeds() -> list[bytes]:
    """The header of a file whose matrices are float32, behind its length, as in the file."""
    header: dict[str, object] = {
        "__metadata__": {"puna.formats": json.dumps(dict.fromkeys(MATRICES, "f32"))},
    }
    position = 0
    for name, shape in CONFIG.tensor_shapes().items():
        is_matrix = len(shape) == 2
        n_bytes = _native.packed_bytes("f32", *shape) if is_matrix else 4 * shape[0]
        header[name] = {
            "dtype": "U8" if is_matrix else "F32",
            "shape": [n_bytes] if is_matrix else list(shape),
            "data_offsets": [position, position + n_bytes],
        }
        position += n_bytes
    text = json.dumps(header).encode()
    return [len(text).to_bytes(8, "little") + text + bytes(position)]


def parse(data: bytes, folder: Path) -> None:
    config = {**CONFIG.to_puna(), "puna": {"layout": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(data)
    checkpoint = open_checkpoint(folder)
    for name in checkpoint.dtypes:
        checkpoint.tensor(name).to_float32()


if __name__ == "__main__":
    main(seeds, parse)
