"""How a ``tokenizer.json`` turns tokens back into text: one of two ways, recognised by its decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from puna.errors import TokenizerError

__all__ = ["Spelling", "find_spelling"]


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a vocabulary writes bytes of text as characters of tokens.

    Attributes:
        is_byte_level: every byte has a character of its own (GPT-2, Llama 3); otherwise a space is U+2581
            and bytes without a token are spelled ``<0x41>`` (Llama 2).
        drops_first_space: the space that encoding put before a text is taken off again (Llama 2).
    """

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
        return Spelling(is_byte_level=True)
    is_sentencepiece = (
        kinds[:3] == ["Replace", "ByteFallback", "Fuse"]
        and steps[0].get("pattern") == {"String": "\u2581"}
        and steps[0].get("content") == " "
    )
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    if is_sentencepiece and steps[3:] in ([], [strip]):
        return Spelling(is_byte_level=False, drops_first_space=len(steps) == 4)
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
