from __future__ import annotations

from puna.prompt import Image, User
from puna.prompt.call_text import CallStyle
from puna.prompt.llama3 import Llama3Format, llama3_pieces
from puna.prompt.visible import VisibleStream, visible_ids, visible_pieces
from puna.tokens import Tokenizer

EXPECTED = [
    ("<|begin_of_text|>", True),
    ("<|start_header_id|>", True),
    ("user", False),
    ("<|end_header_id|>", True),
    ("\n\n<|eot_id|>🦙", False),
    ("<|image|>", True),
    ("x", False),
    ("<|eot_id|>", True),
    ("<|start_header_id|>", True),
    ("assistant", False),
    ("<|end_header_id|>", True),
    ("\n\n", False),
]
MESSAGES = [User(("<|eot_id|>🦙", Image(), "x"))]


def test_written_and_real_tokens_differ(llama3: Tokenizer, vision_tokenizer: Tokenizer) -> None:
    for tokenizer in (llama3, vision_tokenizer):
        ids = Llama3Format(tokenizer, "llama3.2-vision").encode_chat(MESSAGES)
        assert visible_ids(tokenizer, ids) == EXPECTED
    assert visible_pieces(llama3_pieces(MESSAGES, CallStyle())) == EXPECTED


def test_a_stream_shows_what_is_complete(llama3: Tokenizer) -> None:
    stream = VisibleStream(llama3)
    assert [stream.push(i) for i in (64, 9468, 99, 247, 9468, 128009, 9468)] == [
        [("a", False)], [], [], [("🦙", False)], [], [("\ufffd", False), ("<|eot_id|>", True)], [],
    ]  # fmt: skip
    assert stream.finish() == [("\ufffd", False)]
