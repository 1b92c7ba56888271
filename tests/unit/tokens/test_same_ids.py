"""Ids beside those of the tokenizers library, for which the files are written, and of tiktoken."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from puna.models.checkpoint import Vocabulary
from puna.models.tiktoken_vocabulary import LLAMA3_SPECIAL_TOKENS
from puna.models.tokenizer_json import BYTE_CHARACTERS, LLAMA3_PATTERN, TokenizerJson
from puna.tokens import Tokenizer

Encode = Callable[[str], list[int]]


def library(text: str | bytes) -> Encode:
    """The library's encoding without special tokens, as Puna's is."""
    backend = Backend.from_str(text if isinstance(text, str) else text.decode())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return lambda text: list(backend.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="module")
def theirs_llama3(llama3_vocabulary: Vocabulary) -> Encode:
    return library(llama3_vocabulary.tokenizer_json.to_bytes())


@pytest.fixture(scope="module")
def theirs_smollm(smollm_vocabulary: Vocabulary) -> Encode:
    return library(smollm_vocabulary.tokenizer_json.to_bytes())


@pytest.fixture(scope="module")
def theirs_llama2(llama2_vocabulary: Vocabulary) -> Encode:
    return library(llama2_vocabulary.tokenizer_json.to_bytes())


@pytest.fixture(scope="module")
def reference(llama3_data: bytes) -> Encode:
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, llama3_data.splitlines())}
    special = {text: len(ranks) + i for i, text in enumerate(LLAMA3_SPECIAL_TOKENS)}
    encoding = tiktoken.Encoding(
        "llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens=special
    )
    return encoding.encode_ordinary


ANY = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
SOUP = st.binary(max_size=60).map(lambda data: data.decode("utf-8", "replace"))
WORDS = st.lists(
    st.sampled_from(
        [
            "the ",
            "llama",
            "'s",
            "'LL",
            " \n",
            "\r\n",
            "  ",
            "12345",
            "<|eot_id|>",
            "é",
            "中文",
            "🦙",
            "▁",
            "_",
            "ab",
        ]
    ),
    max_size=15,
).map("".join)
TEXTS = st.one_of(ANY, SOUP, WORDS)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="a" * 5_000 + " " * 5_000)
def test_llama3(llama3: Tokenizer, theirs_llama3: Encode, reference: Encode, text: str) -> None:
    ids = llama3.encode(text)
    assert ids == theirs_llama3(text)
    assert ids == reference(text)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_smollm(smollm: Tokenizer, theirs_smollm: Encode, text: str) -> None:
    # Six control characters have no token; Puna writes U+FFFD for them, the library nothing.
    text = "".join(c for c in text if smollm.encode(c) != smollm.encode("\ufffd"))
    assert smollm.encode(text) == theirs_smollm(text)


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(TEXTS, st.text(alphabet="abc é\u2581", max_size=40)))
def test_llama2(llama2_vocabulary: Vocabulary, theirs_llama2: Encode, text: str) -> None:
    assert Tokenizer(llama2_vocabulary).encode(text) == theirs_llama2(text)


def test_long_texts(
    llama3: Tokenizer, smollm: Tokenizer, theirs_llama3: Encode, theirs_smollm: Encode
) -> None:
    choose = random.Random(3)
    pieces = [
        "word",
        " word",
        "\n",
        "\n\n",
        " \n",
        "\r\n",
        "...",
        ".\n",
        "!\n\n ",
        "1234",
        "\u2028",
        "é",
        "<|",
    ]
    text = "".join(choose.choices(pieces, k=60_000))
    assert llama3.encode(text) == theirs_llama3(text)
    assert smollm.encode(text) == theirs_smollm(text)


def test_the_written_file_says_the_same(llama3_vocabulary: Vocabulary, smollm_vocabulary: Vocabulary) -> None:
    for vocabulary in (llama3_vocabulary, smollm_vocabulary):
        data = vocabulary.tokenizer_json.to_bytes()
        again = TokenizerJson.from_text(data)
        assert again.to_bytes() == data
        assert again.document == vocabulary.tokenizer_json.document


# A vocabulary of characters or of bytes, with merges at random, and sections at random.
STRINGS = [
    "a",
    "b",
    "c",
    "ab",
    "bc",
    "abc",
    "\u2581",
    "\u2581a",
    "é",
    "1",
    "12",
    "\n",
    "<",
    "x",
    "\u0120",
    "\u0120a",
]
SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
NORMALIZERS = [
    None,
    SPACE,
    {"type": "Prepend", "prepend": "\u2581"},
    {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, SPACE]},
    {"type": "Replace", "pattern": {"Regex": "b+"}, "content": "xa"},
    {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "NFC"}, {"type": "NFKC"}]},
    {"type": "NFKD"},
]


def split(pattern: dict[str, str], behavior: str, invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def metaspace(scheme: str, cut: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}


def byte_level(space: bool, regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": regex}


BEHAVIORS = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
CUTS = [
    {"type": "Digits", "individual_digits": True},
    {"type": "Digits", "individual_digits": False},
    *(split({"Regex": "a|b"}, behavior) for behavior in BEHAVIORS),
    *(split({"Regex": r"\s"}, behavior, invert=True) for behavior in BEHAVIORS),
    *(split({"String": "b"}, behavior) for behavior in BEHAVIORS),
]
ENDS = [metaspace(scheme, cut) for scheme in ("always", "first", "never") for cut in (True, False)]
DECODERS = {
    True: {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    False: {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ],
    },
}


@st.composite
def documents(draw: st.DrawFn) -> str:
    is_byte_level = draw(st.booleans())
    flag = st.booleans()
    tokens = list(BYTE_CHARACTERS) if is_byte_level else []
    tokens += [s for s in draw(st.lists(st.sampled_from(STRINGS), unique=True)) if s not in tokens]
    tokens += ["<unk>", *(f"<0x{byte:02X}>" for byte in range(draw(st.sampled_from([0, 200, 256]))))]
    ids = {token: i for i, token in enumerate(tokens)}
    pairs = [(token[:i], token[i:]) for token in tokens for i in range(1, len(token))]
    pairs = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
    merges = draw(st.lists(st.sampled_from(pairs), max_size=12)) if pairs else []
    added = []
    for text in draw(st.lists(st.sampled_from(["<unk>", "<a>", "ab", "a b", "bé", "<a><b>"]), unique=True)):
        flags = {key: draw(flag) for key in ("lstrip", "rstrip", "normalized", "special")}
        added.append({"id": ids.setdefault(text, len(ids)), "content": text, "single_word": False, **flags})
    steps = draw(st.lists(st.sampled_from(CUTS), max_size=2))
    if is_byte_level:
        steps.append(byte_level(draw(flag), draw(flag)))
    else:
        steps += draw(st.lists(st.sampled_from(ENDS), max_size=1))
    # Where a normalizer has put something in front of a text, the library takes several pieces for the first.
    has_first = any(step.get("prepend_scheme") == "first" for step in steps)
    normalizer = draw(st.sampled_from(NORMALIZERS[:2] if has_first else NORMALIZERS))
    model = {
        "type": "BPE", "dropout": None, "unk_token": draw(st.sampled_from([None, "<unk>"])),
        "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": draw(flag),
        "byte_fallback": draw(flag), "ignore_merges": draw(flag),
        "vocab": ids, "merges": merges if draw(flag) else [" ".join(pair) for pair in merges],
    }  # fmt: skip
    document = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}, "post_processor": None,
        "decoder": DECODERS[is_byte_level], "model": model,
    }  # fmt: skip
    return json.dumps(document, ensure_ascii=draw(flag))


@settings(max_examples=400, deadline=None)
@given(document=documents(), text=st.text(alphabet="aabbc é1२\n\u2581<x>\u00a0\u0301ﬁ", max_size=30))
def test_any_vocabulary(document: str, text: str) -> None:
    tokenizer = Tokenizer(Vocabulary(tokenizer_json=TokenizerJson.from_text(document)))
    expected = library(document)(text)
    if tokenizer.special_tokens.keys() & {"<unk>", "ab"} and {*expected} & {
        *tokenizer.special_tokens.values()
    }:
        return  # the library lets text become a special token
    assert tokenizer.encode(text) == expected


def test_a_run_as_long_as_any(theirs_smollm: Encode, smollm: Tokenizer) -> None:
    text = "".join(random.Random(5).choices("aeiounrstlm", k=25_000))
    assert smollm.encode(text) == theirs_smollm(text)
