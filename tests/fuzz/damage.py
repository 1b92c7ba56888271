"""Damaged copies of good files: `damaged`. Bytes are changed blindly, JSON documents by their structure."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

NUMBERS = (
    0, 1, 2, 7, 31, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63,
    2**64 - 1,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**63, 10**30, 10**400, -(10**4000), 1e308, 0.5, -0.0, float("nan"),
    float("inf"), "", "../x", "\0", "a" * 300, "\ud800", "a\udfff", "\x1b[2J", "{%", "{{ x",
    [], [[]], {}, {"": 0}, [None], [0], ["a"], [{}], {"a": []}, {"content": []},
)  # fmt: skip
# What `json.dumps` does not write stands in the document as one of these until it is written.
_RAW = {
    "@deep list@": "[" * 90 + "]" * 90,
    "@deeper list@": "[" * 975 + "]" * 975,
    "@deep object@": '{"a":' * 980 + "1" + "}" * 980,
    "@digits@": "1" * 5000,
    "@power@": "1e999999",
    "@twice@": '{"a":1,"a":2}',
    "@half@": '{"a":',
}
Place = tuple[Any, Any]
"""An object or a list, and a key or an index of it."""


def damaged(rng: random.Random, seeds: list[bytes]) -> bytes:
    """One of the files with something wrong; a JSON document in it keeps its syntax in most cases."""
    data = rng.choice(seeds)
    # In safetensors the document stands behind its length.
    start, end = (8, 8 + int.from_bytes(data[:8], "little")) if data[8:9] == b"{" else (0, len(data))
    if rng.random() < 0.7:
        try:
            value = json.loads(data[start:end])
        except ValueError:
            value = None
        if isinstance(value, dict):
            text = _damaged_json(rng, value)
            return (len(text).to_bytes(8, "little") if start else b"") + text + data[end:]
    return _damaged_bytes(rng, bytearray(data), seeds)


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


def _damaged_json(rng: random.Random, value: dict[str, Any]) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not value:
            break
        holder, key = _place(rng, value)
        match rng.randrange(8):
            case 0:
                del holder[key]
            case 1 | 2:
                holder[key] = deepcopy(rng.choice(VALUES))
            case 3:
                holder[key] = rng.choice(list(_RAW))
            case 4:
                holder[key] = _retyped(rng, holder[key])
            case 5:
                # Copies, as one may be inside the other.
                other, other_key = _place(rng, value)
                holder[key], other[other_key] = deepcopy(other[other_key]), deepcopy(holder[key])
            case 6:
                other, other_key = _place(rng, value)
                holder[key] = deepcopy(other[other_key])
            case _:
                if isinstance(holder, dict):
                    holder[rng.choice(("x", "", "type", "id", key + "_"))] = holder.pop(key)
                else:
                    holder.insert(key, deepcopy(rng.choice(VALUES)))
    text = json.dumps(value)
    for word, raw in _RAW.items():
        text = text.replace(f'"{word}"', raw)
    return text.encode()


def _place(rng: random.Random, value: dict[str, Any]) -> Place:
    """Any place at any depth; large vocabularies do not make settings rare."""
    holder: Any = value
    while True:
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            return holder, key
        holder = inner


def _retyped(rng: random.Random, value: Any) -> Any:
    """The same thing as something else: a number as a text, one thing as a list of it, and so on."""
    return rng.choice(
        (str(value), [value], {"content": value}, [value, value], len(str(value)), float(len(str(value))),
         list(value) if isinstance(value, dict | str) else [[value]])
    )  # fmt: skip
