from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from puna.errors import TokenizerError
from puna.models.checkpoint import Vocabulary
from puna.models.gguf_vocabulary import tokenizer_json_from_gguf
from puna.tokens import TextStream, Tokenizer


def pieces(tokenizer: Tokenizer, ids: list[int], *, show_special: bool = False) -> list[str]:
    stream = TextStream(tokenizer, show_special=show_special)
    return [*(stream.push(i) for i in ids), stream.finish()]


def test_characters_come_whole(llama3: Tokenizer) -> None:
    assert pieces(llama3, [64, 9468, 99, 247, 65]) == ["a", "", "", "🦙", "b", ""]


def test_broken_bytes_show_when_they_are_certain(llama3: Tokenizer) -> None:
    # 9468 opens a character of four bytes; a letter cannot go on with it.
    assert pieces(llama3, [9468, 64, 9468]) == ["", "\ufffda", "", "\ufffd"]


def test_special_tokens_do_not_part_a_character(llama3: Tokenizer) -> None:
    assert pieces(llama3, [9468, 128009, 99, 247]) == ["", "", "", "🦙", ""]
    assert pieces(llama3, [64, 128009], show_special=True) == ["a", "<|eot_id|>", ""]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), show_special=st.booleans())
def test_joined_pieces_equal_decode(llama3: Tokenizer, data: st.DataObject, show_special: bool) -> None:
    # Most tokens are whole words; the first 256 are single bytes, of which characters go wrong.
    ids = data.draw(
        st.lists(st.one_of(st.integers(0, 255), st.integers(0, 127_999), st.integers(127_990, 128_255)))
    )
    joined = "".join(pieces(llama3, ids, show_special=show_special))
    assert joined == llama3.decode(ids, show_special=show_special)


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    first: list[Any] = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = ["\u2581", "a", "\u2581a", "é"]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*first, *words],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(words),
        "tokenizer.ggml.scores": [0.0] * len(first) + [-1.0, -2.0, -3.0, -4.0],
    }
    return Tokenizer(Vocabulary(tokenizer_json=tokenizer_json_from_gguf(metadata)))


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, 262)), show_special=st.booleans())
@example(ids=[1, 259, 259, 261], show_special=False)
@example(ids=[3 + 0xC3, 259, 3 + 0x20], show_special=True)
def test_joined_pieces_equal_decode_with_a_leading_space(
    sentencepiece: Tokenizer, ids: list[int], show_special: bool
) -> None:
    joined = "".join(pieces(sentencepiece, ids, show_special=show_special))
    assert joined == sentencepiece.decode(ids, show_special=show_special)


def test_only_the_first_space_is_dropped(sentencepiece: Tokenizer) -> None:
    assert pieces(sentencepiece, [1, 259, 261, 261]) == ["", "", " a", " a", ""]


def test_unknown_ids_are_refused(llama3: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="token id 128256 is not in the vocabulary"):
        TextStream(llama3).push(128256)
