"""A vocabulary as the keys of a GGUF file: `vocabulary_keys`.

What is written is read back with `puna.models.gguf_vocabulary` and compared, so that a vocabulary that
llama.cpp would read differently is an error and never other ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from puna.errors import CheckpointError
from puna.export.gguf_file import Value
from puna.models.checkpoint import Vocabulary
from puna.models.gguf_vocabulary import pre_tokenizer_name, tokenizer_json_from_gguf
from puna.models.tokenizer_json import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, TokenizerJson

__all__ = ["vocabulary_keys"]

_BYTES = frozenset(map("<0x{:02X}>".format, range(256)))
_WAY_OUT = "; write Hugging Face's layout instead"
# Sections that decide which ids a text has, and must come back as they were.
_SECTIONS = ("normalizer", "pre_tokenizer")


def vocabulary_keys(vocabulary: Vocabulary, n_rows: int) -> dict[str, Value]:
    """Make the ``tokenizer.*`` keys.

    Args:
        vocabulary: of either kind: byte-level, or sentencepiece's.
        n_rows: rows of the embedding; ids without a token get an unused one.

    Raises:
        CheckpointError: GGUF cannot say what the vocabulary does.
    """
    file = vocabulary.tokenizer_json
    merges = _merges(file)
    is_sentencepiece = bool(file.document["model"].get("byte_fallback"))
    texts, types = _tokens(file, n_rows, is_sentencepiece)
    keys: dict[str, Value] = {"tokenizer.ggml.model": "llama" if is_sentencepiece else "gpt2"}
    if is_sentencepiece:
        keys |= _sentencepiece_keys(file, texts, merges)
    else:
        keys["tokenizer.ggml.pre"] = _pre_name(file)
    keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"] = texts, types
    if not is_sentencepiece:
        keys["tokenizer.ggml.merges"] = [" ".join(pair) for pair in merges]
    _check(file, merges, keys)
    return keys | _special_keys(vocabulary, texts)


def _merges(file: TokenizerJson) -> list[tuple[str, str]]:
    pairs = json.loads(file.table.merges_json())
    return [(left, right) for left, right in (p.split(" ") if isinstance(p, str) else p for p in pairs)]


def _tokens(file: TokenizerJson, n_rows: int, is_sentencepiece: bool) -> tuple[list[str], list[int]]:
    """Texts and types of all ids."""
    texts = [f"[PAD{i}]" for i in range(n_rows)]
    types = [UNUSED] * n_rows
    for text, i in json.loads(file.table.vocab_json()).items():
        texts[i] = text
        types[i] = BYTE if is_sentencepiece and text in _BYTES else NORMAL
    unknown = file.document["model"].get("unk_token")
    for token in file.document["added_tokens"]:
        i, text = token["id"], token["content"]
        texts[i] = text
        types[i] = CONTROL if token.get("special") else USER_DEFINED
        if is_sentencepiece and text == unknown:
            types[i] = UNKNOWN
    return texts, types


def _pre_name(file: TokenizerJson) -> str:
    cut = _without_offsets(file.document.get("pre_tokenizer"))
    name = pre_tokenizer_name(cut, bool(file.document["model"].get("ignore_merges")))
    if name is None:
        raise CheckpointError(
            f"GGUF names the ways to cut a text, and has no name for this vocabulary's: {cut!r:.200}"
            f"{_WAY_OUT}"
        )
    return name


def _without_offsets(section: Any) -> Any:
    """A section with the default of `trim_offsets`, which changes no ids."""
    if isinstance(section, dict):
        section = {key: _without_offsets(value) for key, value in section.items()}
        return section | ({"trim_offsets": True} if section.get("type") == "ByteLevel" else {})
    return [_without_offsets(item) for item in section] if isinstance(section, list) else section


def _sentencepiece_keys(
    file: TokenizerJson, texts: Sequence[str], merges: Sequence[tuple[str, str]]
) -> dict[str, Value]:
    """Scores that rank the tokens as the merges do; what no merge makes comes last."""
    ranks: dict[str, int] = {}
    last = ""
    for left, right in merges:
        made = left + right
        if made != last and made in ranks:
            raise CheckpointError(
                f"GGUF ranks tokens and not merges, and those of {made!r:.100} stand apart{_WAY_OUT}"
            )
        last = made
        ranks.setdefault(made, len(ranks))
    steps = _steps(file.document.get("normalizer"))
    return {
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": [-float(ranks.get(text, len(ranks))) for text in texts],
        "tokenizer.ggml.add_space_prefix": any(step.get("type") == "Prepend" for step in steps),
    }


def _steps(normalizer: Any) -> list[dict[str, Any]]:
    if not isinstance(normalizer, dict):
        return []
    steps = normalizer.get("normalizers", [normalizer])
    return [step for step in steps if isinstance(step, dict)]


def _check(file: TokenizerJson, merges: Sequence[tuple[str, str]], keys: Mapping[str, Value]) -> None:
    """Read the keys back and compare what decides about ids."""
    again = tokenizer_json_from_gguf(keys)
    have, want = again.document, file.document
    for section in _SECTIONS:
        if _without_offsets(have.get(section)) != _without_offsets(want.get(section)):
            raise CheckpointError(
                f"GGUF cannot say this vocabulary's `{section}`, {want.get(section)!r:.200}{_WAY_OUT}"
            )
    if sorted(_merges(again)) != sorted(merges):
        raise CheckpointError(f"GGUF cannot say this vocabulary's merges{_WAY_OUT}")
    strange = [
        t for t in want["added_tokens"] if any(t.get(key) for key in ("single_word", "lstrip", "rstrip"))
    ]
    if strange:
        raise CheckpointError(
            f"GGUF cannot say that {strange[0]['content']!r:.100} takes spaces or whole words only{_WAY_OUT}"
        )


def _special_keys(vocabulary: Vocabulary, texts: Sequence[str]) -> dict[str, Value]:
    keys: dict[str, Value] = {"tokenizer.ggml.add_bos_token": vocabulary.add_bos}
    if vocabulary.bos_id is not None:
        keys["tokenizer.ggml.bos_token_id"] = vocabulary.bos_id
    ends = list(vocabulary.eos_ids)
    named = vocabulary.special_tokens.get("eos_token")
    ends.sort(key=lambda i: texts[i] != named)  # the one that the checkpoint names comes first
    for name, i in zip(("eos", "eot", "eom"), _in_roles(ends, texts), strict=False):
        keys[f"tokenizer.ggml.{name}_token_id"] = i
    if "<unk>" in texts[:3]:
        keys["tokenizer.ggml.unknown_token_id"] = texts.index("<unk>")
    if vocabulary.chat_template is not None:
        keys["tokenizer.chat_template"] = vocabulary.chat_template
    return keys


def _in_roles(ends: list[int], texts: Sequence[str]) -> list[int]:
    """End tokens in the order eos, eot, eom. A fourth has no key; llama.cpp knows the usual ones by text."""
    first, rest = ends[:1], ends[1:]
    rest.sort(key=lambda i: (texts[i] != "<|eot_id|>", texts[i] != "<|eom_id|>"))
    return first + rest
