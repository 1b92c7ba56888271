"""Safetensors: the header and the bytes that it points to."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fuzz.harness import main

from puna.models.safetensors import SafetensorsFile


def _file(header: dict[str, object], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def seeds() -> list[bytes]:
    first = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    second = {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}
    return [
        _file({"__metadata__": {"format": "pt"}, "a": first, "b": second}, bytes(32)),
        _file({"a": first}, bytes(24)),
        _file({}, b""),
    ]


def parse(data: bytes, folder: Path) -> None:
    path = folder / "m.safetensors"
    path.write_bytes(data)
    file = SafetensorsFile(path)
    for name in file.entries:
        file.data(name).tobytes()


if __name__ == "__main__":
    main(seeds, parse)
