from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import regex
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import CheckpointError
from puna.models.checkpoint import Vocabulary
from puna.models.gguf_vocabulary import tokenizer_json_from_gguf
from puna.models.tokenizer_json import BYTE_CHARACTERS, LLAMA3_PATTERN
from puna.tokens import Tokenizer


def load(metadata: dict[str, Any]) -> Tokenizer:
    return Tokenizer(Vocabulary(tokenizer_json=tokenizer_json_from_gguf(metadata)))


def test_default_model_keeps_every_token_and_merge(default_gguf: Path, smollm: Tokenizer) -> None:
    reader = GGUFReader(default_gguf)
    names = ("model", "pre", "tokens", "token_type", "merges")
    metadata = {f"tokenizer.ggml.{n}": reader.fields[f"tokenizer.ggml.{n}"].contents() for n in names}
    document = json.loads(tokenizer_json_from_gguf(metadata).to_bytes())
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    assert document["model"]["vocab"] == {token: i for i, token in enumerate(tokens)}
    assert document["model"]["merges"] == merges
    assert [(t["id"], t["content"], t["special"]) for t in document["added_tokens"]] == [
        (i, tokens[i], True) for i in range(17)
    ]
    assert dict(smollm.special_tokens) == {tokens[i]: i for i in range(17)}


# Pinned: what the default model reads in almost every conversation.
GREETING = "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
GREETING_IDS = [
    9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182,
]  # fmt: skip


@pytest.mark.parametrize(("text", "ids"), [("Hello world", [19556, 905]), (GREETING, GREETING_IDS)])
def test_default_model_known_ids(smollm: Tokenizer, text: str, ids: list[int]) -> None:
    assert smollm.encode(text) == ids


@pytest.fixture(scope="session")
def encode_by_merges(smollm_vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """The rule of GPT-2 with single digits, spelled out."""
    model = json.loads(smollm_vocabulary.tokenizer_json.to_bytes())["model"]
    rank = {tuple(pair.split(" ")): i for i, pair in enumerate(model["merges"])}
    # A digit is a piece by itself, and what lies between digits is cut by GPT-2's pattern on its own.
    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

    def encode(text: str) -> list[int]:
        pieces = [p for part in regex.split(r"(\p{N})", text) for p in regex.findall(gpt2, part)]
        assert "".join(pieces) == text
        return [model["vocab"][part] for piece in pieces for part in merge(piece)]

    def merge(piece: str) -> list[str]:
        parts = [BYTE_CHARACTERS[byte] for byte in piece.encode()]
        while found := [(rank[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in rank]:
            i = min(found)[1]
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return parts

    return encode


SMOLLM_TEXTS = st.text(alphabet="aabtheingABC 'slS123½.\n\t\r\u00a0\u3000-=_é中🦙<|>", max_size=60)


@settings(max_examples=300, deadline=None)
@given(text=SMOLLM_TEXTS)
def test_same_ids_as_merging_in_order(
    smollm: Tokenizer, encode_by_merges: Callable[[str], list[int]], text: str
) -> None:
    assert smollm.encode(text) == encode_by_merges(text)


def test_smollm_splits_every_digit(smollm: Tokenizer) -> None:
    assert [smollm.decode([i]) for i in smollm.encode("year 2024, 7½")] == [
        "year", " ", "2", "0", "2", "4", ",", " ", "7", "½",
    ]  # fmt: skip


def test_rows_behind_the_vocabulary_are_no_tokens(tiny_metadata: dict[str, Any]) -> None:
    tokens, types = tiny_metadata["tokenizer.ggml.tokens"], tiny_metadata["tokenizer.ggml.token_type"]
    n = len(tokens)
    tokens += ["[PAD7]", "<unused>", "[PAD]", f"[PAD{n + 3}]", f"[PAD{n + 4}]", f"[PAD{n + 5}]"]
    types += [5, 5, 5, 1, 5, 5]
    tokenizer = load(tiny_metadata)
    assert tokenizer.left_out(n + 8) == [n + 4, n + 5, n + 6, n + 7]  # and nothing that could be a token
    assert tokenizer.decode([n, n + 1, n + 2, n + 3]) == f"[PAD7]<unused>[PAD][PAD{n + 3}]"


def test_user_defined_tokens_are_matched_and_not_special(tiny_metadata: dict[str, Any]) -> None:
    tokenizer = load(tiny_metadata)
    assert tokenizer.encode("<think>ab") == [3, 260]
    assert not tokenizer.is_special(3)
    assert [i for i in range(tokenizer.vocab_size) if tokenizer.is_special(i)] == [0, 1, 2]
    assert tokenizer.vocab_size == 4 + 256 + 3


@pytest.mark.parametrize("pre", ["llama-bpe", "llama3", "llama-v3"])
def test_llama3_cuts_text_its_own_way(tiny_metadata: dict[str, Any], pre: str) -> None:
    tiny_metadata["tokenizer.ggml.pre"] = pre
    document = json.loads(tokenizer_json_from_gguf(tiny_metadata).to_bytes())
    split = document["pre_tokenizer"]["pretokenizers"][0]
    assert split["pattern"] == {"Regex": LLAMA3_PATTERN}
    assert document["model"]["ignore_merges"] is True


def test_ignored_merges_take_whole_tokens(tiny_metadata: dict[str, Any]) -> None:
    # "bca" is a token that no merges build: Llama 3 takes it whole, GPT-2 cannot.
    tiny_metadata["tokenizer.ggml.tokens"].append("bca")
    tiny_metadata["tokenizer.ggml.token_type"].append(1)
    assert len(load(tiny_metadata).encode("bca")) == 3
    tiny_metadata["tokenizer.ggml.pre"] = "llama-bpe"
    assert load(tiny_metadata).encode("bca") == [263]


def test_gpt2_keeps_digits_together(tiny_metadata: dict[str, Any]) -> None:
    tiny_metadata["tokenizer.ggml.tokens"].append("12")
    tiny_metadata["tokenizer.ggml.token_type"].append(1)
    tiny_metadata["tokenizer.ggml.merges"].append("1 2")
    assert len(load(tiny_metadata).encode("12")) == 2
    for pre in ("gpt-2", "default"):
        tiny_metadata["tokenizer.ggml.pre"] = pre
        assert load(tiny_metadata).encode("12") == [263]


def change(name: str, value: Any) -> Any:
    def apply(metadata: dict[str, Any]) -> None:
        metadata[f"tokenizer.ggml.{name}"] = value

    return apply


def replace(name: str, index: int, value: Any) -> Any:
    def apply(metadata: dict[str, Any]) -> None:
        metadata[f"tokenizer.ggml.{name}"][index] = value

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("model", "bert"), "`tokenizer.ggml.model` must be 'gpt2' or 'llama', got 'bert'"),
        (change("pre", "smolm"), "'smolm' .* did you mean 'smollm'"),
        (change("pre", ["smollm"]), r"`tokenizer.ggml.pre` \['smollm'\] is a way to cut text"),
        (change("tokens", None), "`tokenizer.ggml.tokens` must be a list of str, got None"),
        (change("tokens", []), "needs 1 to 1048576 tokens, got 0"),
        (
            change("token_type", [1, 2]),
            "`tokenizer.ggml.token_type` must have 263 entries, one a token, got 2",
        ),
        (change("merges", "a b"), "`tokenizer.ggml.merges` must be a list of str, got a b"),
        (change("add_space_prefix", True), "`tokenizer.ggml.add_space_prefix` must be false"),
        (replace("tokens", 7, 7), r"must be a list of str, got \['int', 'str'\]"),
        (replace("tokens", 7, ""), "token 7 must have 1 to 1024 characters, got 0"),
        (replace("tokens", 7, "x" * 1025), "token 7 must have 1 to 1024 characters, got 1025"),
        (replace("tokens", 261, "ab"), "tokens 260 and 261 are both 'ab'"),
        (replace("token_type", 7, 9), "type of token 7 must be from 1 to 6, got 9"),
        (replace("merges", 1, "ab zz"), "merge 1 must be two ordinary tokens .* got 'ab zz'"),
        (replace("merges", 1, "ab"), "merge 1 must be .* got 'ab'"),
        (replace("merges", 1, "b c"), "merge 1 must be .* got 'b c'"),
        (replace("token_type", 261, 3), "merge 1 must be two ordinary tokens .* got 'ab c'"),
    ],
)
def test_damaged_vocabularies_are_refused(tiny_metadata: dict[str, Any], damage: Any, message: str) -> None:
    damage(tiny_metadata)
    with pytest.raises(CheckpointError, match=message):
        tokenizer_json_from_gguf(tiny_metadata)


# A sentencepiece vocabulary: unknown, two control tokens, bytes, then pieces from the best to the worst.
PIECES = ["\u2581", "a", "b", "c", "\u2581a", "ab", "bc", "abc", "\u2581ab", "ca", "aa", "\u2581\u2581", "é"]


@cache
def sentencepiece(add_space_prefix: bool) -> tuple[dict[str, Any], Tokenizer]:
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*first, *PIECES],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(PIECES),
        "tokenizer.ggml.scores": [0.0] * len(first) + [-float((5 * i) % 13) for i in range(len(PIECES))],
        "tokenizer.ggml.add_space_prefix": add_space_prefix,
    }
    return metadata, load(metadata)


def merge_best_first(metadata: dict[str, Any], text: str) -> list[str]:
    """Sentencepiece's rule: again and again, join the two neighbours that make the piece of highest score."""
    tokens, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    score = {token: scores[i] for i, token in enumerate(tokens) if token in PIECES}
    if metadata["tokenizer.ggml.add_space_prefix"] and text:
        text = " " + text
    pieces = list(text.replace(" ", "\u2581"))
    while True:
        joined = [
            (score[left + right], -i)
            for i, (left, right) in enumerate(pairwise(pieces))
            if left + right in score
        ]
        if not joined:
            break
        i = -max(joined)[1]
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    return [
        part
        for piece in pieces
        for part in ([piece] if piece in score else [f"<0x{byte:02X}>" for byte in piece.encode()])
    ]


@settings(max_examples=200)
@given(st.text(alphabet="abc é\n🦙</s>", max_size=25), st.booleans())
def test_sentencepiece_merges_by_score(text: str, add_space_prefix: bool) -> None:
    metadata, tokenizer = sentencepiece(add_space_prefix)
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = tokenizer.encode(text)
    assert [tokens[i] for i in ids] == merge_best_first(metadata, text)
    assert tokenizer.decode(ids) == text


def test_sentencepiece_without_all_bytes_is_refused() -> None:
    metadata = dict(sentencepiece(True)[0])
    metadata["tokenizer.ggml.tokens"] = [t.replace("<0xF1>", "x") for t in metadata["tokenizer.ggml.tokens"]]
    with pytest.raises(CheckpointError, match="a token for every byte, 1 are missing, the first is '<0xF1>'"):
        tokenizer_json_from_gguf(metadata)


def test_sentencepiece_with_a_charsmap_is_refused() -> None:
    metadata = dict(sentencepiece(True)[0])
    metadata["tokenizer.ggml.precompiled_charsmap"] = [1, 2, 3]
    with pytest.raises(CheckpointError, match="precompiled_charsmap"):
        tokenizer_json_from_gguf(metadata)
