"""Where tokens begin in a text that does not show all of them."""

from __future__ import annotations

from puna.server.answers.text_offsets import TextOffsets
from puna.tokens import Tokenizer


def test_tokens_begin_where_the_whole_characters_before_them_end(smollm: Tokenizer) -> None:
    text = "A 👨‍👩‍👧 saw Zoë."
    ids, offsets = smollm.encode(text), TextOffsets(smollm, 100)
    assert len(ids) > len(text)
    whole = [smollm.decode(ids[:n]).rstrip("\ufffd") for n in range(len(ids))]
    assert [offsets.of(token) for token in ids] == [100 + len(each) for each in whole]


def test_special_tokens_take_no_room_unless_they_are_shown(smollm: Tokenizer) -> None:
    (begin, *ids), name = smollm.encode_with_special("<|im_start|>user"), "<|im_start|>"
    hidden, shown = TextOffsets(smollm), TextOffsets(smollm, show_special=True)
    assert [hidden.of(token) for token in (begin, *ids, begin)] == [0, 0, len("user")]
    assert [shown.of(token) for token in (begin, *ids, begin)] == [0, len(name), len(name + "user")]
