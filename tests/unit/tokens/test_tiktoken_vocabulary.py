from __future__ import annotations

import base64
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import CheckpointError
from puna.models.checkpoint import Vocabulary
from puna.models.tiktoken_vocabulary import LLAMA3_SPECIAL_TOKENS, tokenizer_json_from_tiktoken
from puna.models.tokenizer_json import LLAMA3_PATTERN
from puna.tokens import Tokenizer


def test_special_tokens_are_those_of_the_reference(llama3: Tokenizer) -> None:
    path = Path(__file__).parents[2] / "golden" / "llama3_special_tokens.json"
    expected = [(token_id, text) for token_id, text in json.loads(path.read_text())]
    assert len(expected) == 256
    assert list(enumerate(LLAMA3_SPECIAL_TOKENS, 128000)) == expected
    assert [(i, text) for text, i in llama3.special_tokens.items()] == expected


@pytest.fixture(scope="session")
def encode_by_rank(llama3_data: bytes) -> Callable[[str], list[int]]:
    lines = map(bytes.split, llama3_data.splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}

    def encode(text: str) -> list[int]:
        pieces = regex.findall(LLAMA3_PATTERN, text)
        assert "".join(pieces) == text
        return [i for piece in pieces for i in merge_lowest_rank_first(ranks, piece.encode())]

    return encode


def merge_lowest_rank_first(ranks: dict[bytes, int], piece: bytes) -> list[int]:
    """The rule of tiktoken: a known piece is one token, else join the neighbours of lowest rank."""
    if piece in ranks:
        return [ranks[piece]]
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        joined = [
            (ranks[left + right], i)
            for i, (left, right) in enumerate(pairwise(parts))
            if left + right in ranks
        ]
        if not joined:
            return [ranks[part] for part in parts]
        i = min(joined)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


# Without unassigned characters: the two pattern libraries know different versions of Unicode.
TEXTS = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"]), max_size=60),
    st.text(alphabet="aabtheingABC 'slS123.\n\t\r\u00a0\u3000-=_é中🦙", max_size=60),
)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_same_ids_as_merging_by_rank(
    llama3: Tokenizer, encode_by_rank: Callable[[str], list[int]], text: str
) -> None:
    assert llama3.encode(text) == encode_by_rank(text)


def test_own_special_tokens_and_pattern() -> None:
    data = b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate([b"a", b"b", b"ab"]))
    text = tokenizer_json_from_tiktoken(data, ["<|x|>"], r"[ab]b?")
    tokenizer = Tokenizer(Vocabulary(tokenizer_json=text))
    assert tokenizer.encode("aabba") == [0, 2, 1, 0]
    assert dict(tokenizer.special_tokens) == {"<|x|>": 3}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "needs 1 to 1048576 lines, got 0"),
        (b"IQ== 0\nIg== 2\n", "line 2 must be base64, a space and the rank 1, got 'Ig== 2'"),
        (b"IQ== 0\n!!!! 1\n", "line 2 must be base64"),
        (b"IQ== 0\n 1\n", "line 2 must be base64"),
        (b"IQ== 0\nIQ== 1\n", "tokens 0 and 1 are both '!'"),
        (b"\x80\x04pickle", "line 1 must be base64"),
        (base64.b64encode(b"x" * 1025) + b" 0\n", "line 1 must be base64"),
    ],
)
def test_damaged_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        tokenizer_json_from_tiktoken(data)
