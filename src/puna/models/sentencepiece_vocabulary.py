"""Llama 2's ``tokenizer.model``: a sentencepiece model of the byte-pair kind.

The file is a protocol buffer; the few fields that matter are read here, so that no library is needed.
Field numbers are those of ``sentencepiece_model.proto``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from puna.errors import CheckpointError
from puna.models.checkpoint import Vocabulary
from puna.models.tokenizer_json import (
    BYTE,
    CONTROL,
    MAX_TOKEN_CHARACTERS,
    MAX_TOKENS,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    TokenizerJson,
    added_token,
    bpe_tokenizer_json,
    token_table,
)

__all__ = [
    "added_tokens",
    "is_sentencepiece",
    "sentencepiece_tokenizer_json",
    "vocabulary_from_sentencepiece",
]

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}
_BPE = 2

_Field = int | bytes
_SPACE = "\u2581"


def is_sentencepiece(data: bytes) -> bool:
    """Whether a ``tokenizer.model`` is sentencepiece's, by its first byte: the tag of the first piece."""
    return data[:1] == b"\x0a"


def vocabulary_from_sentencepiece(data: bytes) -> Vocabulary:
    """Read a sentencepiece model.

    Args:
        data: the file.

    Returns:
        A vocabulary that gives the same ids as sentencepiece, with the tokens that open and end a text.

    Raises:
        CheckpointError: the file is damaged, not byte-pair encoding, or changes text before encoding.
    """
    pieces: list[bytes] = []
    trainer: dict[int, _Field] = {}
    normalizer: dict[int, _Field] = {}
    for number, value in _fields("the file", data):
        if number == _PIECES and isinstance(value, bytes):
            pieces.append(value)
            if len(pieces) > MAX_TOKENS:
                raise CheckpointError(f"tokenizer.model: may have {MAX_TOKENS} tokens, got more")
        elif number == _TRAINER and isinstance(value, bytes):
            trainer = dict(_fields("the trainer's settings", value))
        elif number == _NORMALIZER and isinstance(value, bytes):
            normalizer = dict(_fields("the normalizer's settings", value))
    _check_settings(trainer, normalizer)
    tokens, scores, types = _read_pieces(pieces)
    tokenizer_json = sentencepiece_tokenizer_json(
        "tokenizer.model", tokens, scores, types, add_space_prefix=bool(normalizer.get(3, True))
    )
    bos, eos = (_control_id(trainer, field, default, types) for field, default in ((41, 1), (42, 2)))
    return Vocabulary(
        tokenizer_json=tokenizer_json,
        bos_id=bos,
        eos_ids=() if eos is None else (eos,),
        add_bos=bos is not None,
    )


def sentencepiece_tokenizer_json(
    source: str,
    tokens: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    *,
    add_space_prefix: bool,
) -> TokenizerJson:
    """Describe a sentencepiece vocabulary as a ``tokenizer.json`` does, whichever file it came in.

    Args:
        source: the file, for messages.
        tokens: pieces, spaces spelled U+2581, no two alike.
        scores: one a token; the pair that makes the token of the highest score is joined first.
        types: one a token, `NORMAL` to `BYTE`.
        add_space_prefix: a text is encoded as if it began with a space.

    Returns:
        The ``tokenizer.json``.

    Raises:
        CheckpointError: bytes lack a token, so that some texts could not be encoded, or a score is no number.
    """
    known = set(tokens)
    missing = [name for name in map("<0x{:02X}>".format, range(256)) if name not in known]
    if missing:
        raise CheckpointError(
            f"{source}: a sentencepiece vocabulary needs a token for every byte, {len(missing)} are missing, "
            f"the first is {missing[0]!r}"
        )
    if not all(map(math.isfinite, scores)):
        raise CheckpointError(f"{source}: every score must be a finite number")
    normal = [i for i, kind in enumerate(types) if kind == NORMAL]
    normal.sort(key=lambda i: (-scores[i], i))
    unknown = [token for token, kind in zip(tokens, types, strict=True) if kind == UNKNOWN]
    spaces: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if add_space_prefix:
        spaces.insert(0, {"type": "Prepend", "prepend": _SPACE})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    table = token_table(tokens)
    table.add_merges_by_rank(normal)
    return bpe_tokenizer_json(
        table,
        added_tokens(tokens, types),
        pre_tokenizer=None,
        decoder={"type": "Sequence", "decoders": decoders},
        normalizer={"type": "Sequence", "normalizers": spaces},
        byte_fallback=True,
        unknown_token=unknown[0] if unknown else None,
    )


def added_tokens(tokens: Sequence[str], types: Sequence[int]) -> list[dict[str, Any]]:
    """Entries of ``added_tokens``: control tokens and the unknown one are special, those of users are not."""
    return [
        added_token(i, token, special=kind != USER_DEFINED)
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]


def _check_settings(trainer: dict[int, _Field], normalizer: dict[int, _Field]) -> None:
    kind = trainer.get(3, 1)
    if kind != _BPE:
        name = _MODEL_TYPES.get(kind, kind) if isinstance(kind, int) else kind
        raise CheckpointError(
            f"tokenizer.model: a sentencepiece model must be of the kind BPE, as Llama 2's is, got {name!r}"
        )
    if normalizer.get(2):
        raise CheckpointError("tokenizer.model: it rewrites characters before encoding; no Llama does that")
    # name of the setting, whether it is on, what a Llama has
    settings = (
        ("remove_extra_whitespaces", normalizer.get(4, 1), 0),
        ("escape_whitespaces", normalizer.get(5, 1), 1),
        ("treat_whitespace_as_suffix", trainer.get(24, 0), 0),
    )
    for name, found, needed in settings:
        if found != needed:
            raise CheckpointError(f"tokenizer.model: `{name}` must be {bool(needed)}, got {bool(found)}")


def _read_pieces(pieces: Sequence[bytes]) -> tuple[list[str], list[float], list[int]]:
    tokens, scores, types = [], [], []
    for i, data in enumerate(pieces):
        fields = dict(_fields(f"token {i}", data))
        text, score, kind = fields.get(1, b""), fields.get(2, b"\0\0\0\0"), fields.get(3, NORMAL)
        if not (isinstance(text, bytes) and isinstance(score, bytes) and len(score) == 4):
            raise CheckpointError(f"tokenizer.model: token {i} must have a text and a score of 4 bytes")
        if not isinstance(kind, int) or not NORMAL <= kind <= BYTE:
            raise CheckpointError(
                f"tokenizer.model: the type of token {i} must be from {NORMAL} to {BYTE}, got {kind!r:.40}"
            )
        try:
            token = text.decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"tokenizer.model: token {i} is not UTF-8: {text[:40]!r}") from error
        if not 1 <= len(token) <= MAX_TOKEN_CHARACTERS:
            raise CheckpointError(
                f"tokenizer.model: token {i} must have 1 to {MAX_TOKEN_CHARACTERS} characters, "
                f"got {len(token)}"
            )
        tokens.append(token)
        scores.append(struct.unpack("<f", score)[0])
        types.append(kind)
    if len(set(tokens)) != len(tokens):
        raise CheckpointError(f"tokenizer.model: {len(tokens) - len(set(tokens))} tokens are there twice")
    return tokens, scores, types


def _control_id(trainer: dict[int, _Field], field: int, default: int, types: Sequence[int]) -> int | None:
    # A negative number, which protocol buffers write as a huge one, says that there is no such token.
    found = trainer.get(field, default)
    if isinstance(found, int) and found < len(types) and types[found] == CONTROL:
        return found
    return None


def _fields(where: str, data: bytes) -> Iterator[tuple[int, _Field]]:
    """Numbers and values of a message's fields: whole numbers as int, all others as their bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(where, data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(where, data, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(where, data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise CheckpointError(
                f"tokenizer.model: {where} is damaged or no sentencepiece model: wire type {wire}"
            )
        if length > len(data) - position:
            raise CheckpointError(
                f"tokenizer.model: {where} ends early: a field needs {length} bytes, "
                f"{len(data) - position} are left"
            )
        yield number, data[position : position + length]
        position += length


def _varint(where: str, data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise CheckpointError(f"tokenizer.model: {where} ends early, in the middle of a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise CheckpointError(f"tokenizer.model: {where} is damaged: a number has more than 10 bytes")
