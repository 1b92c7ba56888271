"""tokenizer.model of Llama 3 (tiktoken) and of Llama 2 (sentencepiece)."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

from tests.fuzz.harness import main

from puna.models.tokenizer_model import read_tokenizer_model


def _field(number: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def _piece(text: str, score: float, kind: int) -> bytes:
    return _field(1, _field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind]))


def seeds() -> list[bytes]:
    tiktoken = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))
    control = _piece("<unk>", 0, 2) + _piece("<s>", 0, 3) + _piece("</s>", 0, 3)
    spelled = b"".join(_piece(f"<0x{byte:02X}>", 0, 6) for byte in range(256))
    ordinary = _piece("\u2581", -1, 1) + _piece("a", -2, 1) + _piece("\u2581a", -3, 1)
    return [tiktoken, control + spelled + ordinary + _field(2, b"\x18\x02") + _field(3, b"\x18\x01\x20\x00")]


def parse(data: bytes, folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(data)
    read_tokenizer_model(folder / "tokenizer.model")


if __name__ == "__main__":
    main(seeds, parse)
