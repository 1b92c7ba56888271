"""From the string of a token, as a vocabulary spells it, to the bytes of text that it stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from puna.errors import TokenizerError
from puna.models.tokenizer_json import BYTE_CHARACTERS

__all__ = ["Spelling", "find_spelling"]

_BYTE_OF = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a vocabulary writes bytes of text as characters of tokens.

    Attributes:
        to_bytes: bytes of one token's string.
        is_byte_level: every byte has a character of its own (GPT-2, Llama 3).
        drops_first_space: the space that encoding put before a text is taken off again (Llama 2).
    """

    to_bytes: Callable[[str], bytes]
    is_byte_level: bool
    drops_first_space: bool = False


def find_spelling(decoder: Any) -> Spelling:
    """Recognise the decoder of a ``tokenizer.json``.

    Args:
        decoder: the file's ``decoder`` section.

    Returns:
        The matching spelling.

    Raises:
        TokenizerError: the section describes neither a byte-level nor a sentencepiece vocabulary.
    """
    steps = _steps(decoder)
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return Spelling(_byte_level_bytes, is_byte_level=True)
    is_sentencepiece = (
        kinds[:3] == ["Replace", "ByteFallback", "Fuse"]
        and steps[0].get("pattern") == {"String": "\u2581"}
        and steps[0].get("content") == " "
    )
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    if is_sentencepiece and steps[3:] in ([], [strip]):
        return Spelling(_sentencepiece_bytes, is_byte_level=False, drops_first_space=len(steps) == 4)
    raise TokenizerError(
        "tokenizer.json: the decoder must be ByteLevel, or Replace, ByteFallback, Fuse and at most one "
        f"Strip, got {kinds or decoder!r:.100}; Puna does not know how this vocabulary spells text"
    )


def _steps(decoder: Any) -> list[dict[str, Any]]:
    steps: Any = [decoder]
    if isinstance(decoder, dict) and decoder.get("type") == "Sequence":
        steps = decoder.get("decoders")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return []
    return steps


def _byte_level_bytes(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        # A few vocabularies hold tokens outside the alphabet; those mean themselves.
        return token.encode("utf-8", "replace")


def _sentencepiece_bytes(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    if byte:
        return bytes([int(byte[1], 16)])
    return token.replace("\u2581", " ").encode("utf-8", "replace")
