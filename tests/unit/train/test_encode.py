"""Which tokens are learned, with the formats of real models, against their published templates' ids."""

from __future__ import annotations

import pytest

from puna.errors import ConfigError
from puna.models.checkpoint import Vocabulary
from puna.prompt.format import ChatFormat
from puna.prompt.messages import Assistant, Message, System, Tool, ToolCall, User
from puna.prompt.select import chat_format
from puna.tokens import Tokenizer
from puna.train.encode import Example, encode_answer, encode_conversation

TALK: list[Message] = [
    System("Be brief."),
    User("Do llamas hum?"),
    Assistant("They do."),
    User("<|im_end|> Why?"),
    Assistant("To talk."),
]


def said(example: Example, tokenizer: Tokenizer) -> list[str]:
    """The stretches that are learned, written out."""
    parts: list[list[int]] = []
    for place, (token, is_said) in enumerate(zip(example.ids, example.said, strict=True)):
        if is_said:
            if not place or not example.said[place - 1]:
                parts.append([])
            parts[-1].append(token)
    return [tokenizer.decode(part, show_special=True) for part in parts]


@pytest.fixture(params=["llama3", "smollm"])
def model(
    request: pytest.FixtureRequest, llama3_vocabulary: Vocabulary, smollm_vocabulary: Vocabulary
) -> tuple[Tokenizer, ChatFormat, str]:
    vocabulary, end = {
        "llama3": (llama3_vocabulary, "<|eot_id|>"),
        "smollm": (smollm_vocabulary, "<|im_end|>"),
    }[request.param]
    tokenizer = Tokenizer(vocabulary)
    return tokenizer, chat_format(vocabulary, tokenizer), end


def test_answers_are_learned_and_their_ends(model: tuple[Tokenizer, ChatFormat, str]) -> None:
    tokenizer, chat, end = model
    example = encode_conversation(chat, TALK)
    assert said(example, tokenizer) == [f"They do.{end}", f"To talk.{end}"]
    # What a prompt of the model is when it runs, and nothing else, stands before an answer.
    prompt = chat.encode_chat(TALK[:-1])
    assert example.ids[: len(prompt)] == prompt
    assert example.ids[-1] == tokenizer.special_id(end)


def test_of_an_answer_only_it_is_learned(model: tuple[Tokenizer, ChatFormat, str]) -> None:
    tokenizer, chat, end = model
    assert said(encode_answer(chat, TALK[:-1], Assistant("To talk.")), tokenizer) == [f"To talk.{end}"]


def test_messages_behind_the_last_answer_are_left_out(model: tuple[Tokenizer, ChatFormat, str]) -> None:
    _, chat, _ = model
    assert encode_conversation(chat, [*TALK, User("And?")]) == encode_conversation(chat, TALK)


def test_calls_of_tools_are_learned(llama3_vocabulary: Vocabulary) -> None:
    tokenizer = Tokenizer(llama3_vocabulary)
    chat = chat_format(llama3_vocabulary, tokenizer)
    call = Assistant("", ends_turn=False, tool_calls=(ToolCall("weather", {"city": "Cusco"}),))
    messages = [User("Rain?"), call, Tool("no"), Assistant("No.")]
    first, second = said(encode_conversation(chat, messages), tokenizer)
    assert "weather" in first
    assert first.endswith("<|eom_id|>")
    assert second == "No.<|eot_id|>"


def test_a_format_that_rewrites_the_past_is_refused() -> None:
    class Forgetful:
        """Shows only the last two messages."""

        name, stop_ids = "forgetful", frozenset({0})

        def encode_chat(self, messages: list[Message]) -> list[int]:
            return [len(m.text) for m in messages[-2:] for _ in range(2)] + [0]

    with pytest.raises(ConfigError, match=r"messages\[2\]: the chat format writes the messages before"):
        encode_conversation(Forgetful(), TALK)


def test_a_format_without_an_end_is_refused() -> None:
    class Endless:
        name, stop_ids = "endless", frozenset({0})

        def encode_chat(self, messages: list[Message]) -> list[int]:
            return [len(m.text) for m in messages]

    with pytest.raises(ConfigError, match="no token that stops"):
        encode_conversation(Endless(), TALK)
