"""Feeds damaged files to a parser: from seeded mutations in pytest, or from atheris for as long as one likes.

A parser may take a file or refuse it with a `CheckpointError`; anything else is a bug. Each ``fuzz_*.py``
has ``seeds()``, good files to begin with, and ``parse(data, folder)``. To fuzz one without end::

    pip install atheris && PYTHONPATH=. python -m tests.fuzz.fuzz_gguf -rss_limit_mb=1000 -timeout=10
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from puna.errors import CheckpointError, TokenizerError

Seeds = Callable[[], list[bytes]]
Parse = Callable[[bytes, Path], object]

NUMBERS = (
    0,
    1,
    2,
    7,
    31,
    0x7F,
    0x80,
    0xFF,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**63, 10**30, 1e308, 0.5, "", "../x", "\0", "a" * 300,
    [], [[]], {}, {"": 0},
)  # fmt: skip


def accepts(parse: Parse, data: bytes, folder: Path) -> bool:
    """Whether the parser takes a file; any error but its own kind gets through."""
    try:
        parse(data, folder)
    except (CheckpointError, TokenizerError):
        return False
    return True


def mutations(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Damaged files, always the same ones; JSON keeps its syntax in half of the cases."""
    rng = random.Random(seed)
    for _ in range(count):
        data = rng.choice(seeds)
        if data[:1] == b"{" and rng.random() < 0.5:
            yield _damaged_json(rng, data)
        else:
            yield _damaged_bytes(rng, bytearray(data), seeds)


def _damaged_bytes(rng: random.Random, data: bytearray, seeds: list[bytes]) -> bytes:
    for _ in range(rng.randint(1, 4)):
        # Headers are where the sizes are, so half of the damage is done near the beginning.
        end = min(len(data), 600) if rng.random() < 0.5 else len(data)
        at = rng.randrange(end + 1)
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                width = rng.choice((1, 2, 4, 8))
                data[at : at + width] = (rng.choice(NUMBERS) % 256**width).to_bytes(width, "little")
            case 2:
                del data[at : at + rng.randint(1, 40)]
            case 3:
                start = rng.randrange(len(data) + 1)
                data[at:at] = data[start : start + rng.randint(1, 60)]
            case 4:
                del data[at:]
            case _:
                other = rng.choice(seeds)
                data[at : at + 30] = other[at : at + 30]
    return bytes(data)


def _damaged_json(rng: random.Random, data: bytes) -> bytes:
    value = json.loads(data)
    for _ in range(rng.randint(1, 2)):
        holder: Any = value
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.7:
                holder = holder[key]
                continue
            if rng.random() < 0.3:
                del holder[key]
            else:
                holder[key] = rng.choice(VALUES)
            break
    return json.dumps(value).encode()


def main(seeds: Seeds, parse: Parse) -> None:
    """Fuzz with atheris, which has options of its own, until it finds something or is stopped."""
    import atheris

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        for number, data in enumerate(seeds()):
            (folder / "corpus" / f"{number}").write_bytes(data)
        atheris.instrument_all()
        atheris.Setup([*sys.argv, str(folder / "corpus")], lambda data: accepts(parse, data, folder))
        atheris.Fuzz()
