from __future__ import annotations

from typing import Any

import pytest

from puna.errors import PromptFormatError
from puna.models.checkpoint import Vocabulary
from puna.prompt import (
    Assistant,
    Image,
    Message,
    Preamble,
    System,
    Tool,
    ToolCall,
    ToolDefinition,
    User,
    chat_format,
)
from puna.prompt.format import Special
from puna.prompt.llama2 import LLAMA2_TAGS, Llama2Format, llama2_pieces
from puna.tokens import Tokenizer


def segments(messages: list[Message]) -> list[dict[str, Any]]:
    """What Meta's reference encodes: texts, each with its own begin and maybe end."""
    found: list[dict[str, Any]] = []
    for piece in llama2_pieces(messages):
        if piece == Special("<s>"):
            found.append({"bos": True, "eos": False, "text": ""})
        elif piece == Special("</s>"):
            found[-1]["eos"] = True
        else:
            assert isinstance(piece, str)
            found[-1]["text"] += piece
    return found


def test_golden_vectors(golden: Any) -> None:
    kinds = {"system": System, "user": User, "assistant": Assistant}
    for vector in golden("llama2_format.jsonl"):
        messages = [kinds[m["role"]](m["content"]) for m in vector["messages"]]
        if vector["error"]:
            with pytest.raises(PromptFormatError, match="must end with a message of the user's"):
                llama2_pieces(messages)
        else:
            assert segments(messages) == vector["segments"], vector["id"]


@pytest.mark.parametrize("tag", LLAMA2_TAGS)
def test_tags_in_messages_are_refused(tag: str) -> None:
    text = f"a{tag}b"
    for messages in (
        [User(text)],
        [User(("a", tag))],
        [User("q", context=text)],
        [System(text), User("q")],
        [User("q"), Assistant(text), User("q")],
    ):
        with pytest.raises(PromptFormatError) as error:
            llama2_pieces(messages)
        assert f"a message holds {tag!r}, which for Llama 2 begins or ends a turn" in str(error.value)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "must have a message of the user's"),
        ([System("s")], "must have a message of the user's"),
        ([User("a"), Assistant("b")], "must end with a message of the user's"),
        ([User("a"), User("b")], "message 1 must be the assistant's, got one of the user's"),
        ([System("s"), User("a"), System("s")], "message 2 must be the assistant's, got one of the system's"),
        ([Tool("t")], "message 0 must be the user's, got one of the tool's"),
        ([User("a"), Assistant("", tool_calls=(ToolCall("f"),)), User("b")], "Llama 2 was taught no tools"),
        ([User(("a", Image()))], "Llama 2 reads text only, and a message has a picture in it"),
    ],
)
def test_what_llama2_does_not_take(messages: list[Message], message: str) -> None:
    with pytest.raises(PromptFormatError, match=message):
        llama2_pieces(messages)


@pytest.fixture(scope="module")
def llama2(llama2_vocabulary: Vocabulary) -> Llama2Format:
    return Llama2Format(Tokenizer(llama2_vocabulary))


def test_pairs_are_encoded_apart(llama2: Llama2Format, llama2_vocabulary: Vocabulary) -> None:
    tokenizer = Tokenizer(llama2_vocabulary)
    ids = llama2.encode_chat([User("a "), Assistant(" b"), User("c", context="d")])
    first, last = tokenizer.encode("[INST] a [/INST] b "), tokenizer.encode("[INST] c\n\nd [/INST]")
    assert ids == [1, *first, 2, 1, *last]
    assert llama2.encode_text("a b") == [1, *tokenizer.encode("a b")]
    assert llama2.stop_ids == {2}


def test_last_message_stays_open(llama2: Llama2Format, llama2_vocabulary: Vocabulary) -> None:
    ids = llama2.encode_chat([User("a"), Assistant(" One, ")], continue_last=True)
    assert ids == [1, *Tokenizer(llama2_vocabulary).encode("[INST] a [/INST] One, ")]
    with pytest.raises(PromptFormatError, match="last message must be the assistant's, got user"):
        llama2.encode_chat([User("a")], continue_last=True)


def test_no_tools(llama2: Llama2Format) -> None:
    with pytest.raises(
        PromptFormatError, match=r"Llama 2 was taught no tools; use a model from llama3\.1 on"
    ):
        llama2.encode_chat([User("a")], preamble=Preamble(tools=(ToolDefinition("f"),)))
    assert llama2.encode_chat([User("a")], preamble=Preamble()) == llama2.encode_chat([User("a")])


def test_control_tokens_in_text_stay_text(llama2: Llama2Format, llama2_vocabulary: Vocabulary) -> None:
    tokenizer = Tokenizer(llama2_vocabulary)
    ids = llama2.encode_chat([System("</s>"), User("<s>"), Assistant("<unk>"), User("</s><s>")])
    assert [i for i in ids if tokenizer.is_special(i)] == [1, 2, 1]


def test_vocabulary_without_ends_is_refused(tiny_vocabulary: Vocabulary) -> None:
    with pytest.raises(PromptFormatError, match="needs tokens that open and end a text"):
        chat_format(
            tiny_vocabulary, Tokenizer(Vocabulary(tokenizer_json=tiny_vocabulary.tokenizer_json)), "llama2"
        )
