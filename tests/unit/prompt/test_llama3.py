from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import PromptFormatError
from puna.models.checkpoint import Vocabulary
from puna.models.tiktoken_vocabulary import LLAMA3_SPECIAL_TOKENS, tokenizer_json_from_tiktoken
from puna.prompt import Assistant, Message, System, Tool, User, as_messages, chat_format
from puna.prompt.llama3 import Llama3Format
from puna.tokens import Tokenizer


@pytest.fixture(scope="session")
def llama3_format(llama3: Tokenizer) -> Llama3Format:
    return Llama3Format(llama3)


def to_message(raw: dict[str, Any]) -> Message:
    if raw.get("stop_reason") == "end_of_message":
        return Assistant(raw["content"], ends_turn=False)
    return as_messages([{"role": raw["role"], "content": raw["content"]}])[0]


def test_golden_vectors(llama3_format: Llama3Format, golden: Any) -> None:
    vectors = golden("llama3_prompts.jsonl")
    assert {vector["mode"] for vector in vectors} == {"dialog", "content"}
    for vector in vectors:
        if vector["mode"] == "content":
            ids = llama3_format.encode_text(vector["messages"])
        else:
            ids = llama3_format.encode_chat([to_message(raw) for raw in vector["messages"]])
        assert ids == vector["token_ids"], vector["id"]


def test_last_message_stays_open(llama3_format: Llama3Format, llama3: Tokenizer) -> None:
    ids = llama3_format.encode_chat([User("Count."), Assistant("One, two")], continue_last=True)
    assert llama3.decode(ids, show_special=True) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nCount.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nOne, two"
    )


@pytest.mark.parametrize(("messages", "found"), [([], "none"), ([Assistant("a"), User("u")], "user")])
def test_only_the_assistant_can_go_on(
    llama3_format: Llama3Format, messages: list[Message], found: str
) -> None:
    with pytest.raises(PromptFormatError, match=f"last message must be the assistant's, got {found}"):
        llama3_format.encode_chat(messages, continue_last=True)


CONTROLS = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"]
INJECTIONS = st.lists(st.one_of(st.sampled_from(CONTROLS), st.text(max_size=5)), max_size=6).map("".join)


@settings(max_examples=200, deadline=None)
@given(
    messages=st.lists(
        st.builds(
            lambda kind, text: kind(text), st.sampled_from([System, User, Assistant, Tool]), INJECTIONS
        ),
        max_size=5,
    )
)
def test_messages_add_no_special_tokens(
    llama3_format: Llama3Format, llama3: Tokenizer, messages: list[Message]
) -> None:
    ids = llama3_format.encode_chat(messages)
    special = [llama3.special_text(i) for i in ids if llama3.is_special(i)]
    header = ["<|start_header_id|>", "<|end_header_id|>"]
    assert special == ["<|begin_of_text|>", *([*header, "<|eot_id|>"] * len(messages)), *header]


def test_stop_ids(llama3_format: Llama3Format) -> None:
    assert llama3_format.stop_ids == {128001, 128008, 128009}


def test_first_llama3_has_no_end_of_message(llama3_data: bytes) -> None:
    names = [t.replace("eom_id", "reserved_special_token_4") for t in LLAMA3_SPECIAL_TOKENS]
    text = tokenizer_json_from_tiktoken(llama3_data, list(dict.fromkeys(names)))
    vocabulary = Vocabulary(tokenizer_json=text, eos_ids=(128001,))
    form = chat_format(vocabulary, Tokenizer(vocabulary))
    assert form.name == "llama3"
    assert form.stop_ids == {128001, 128009}
    assert form.encode_chat([Assistant("a", ends_turn=False)]).count(128009) == 1


def test_vocabulary_without_headers_is_refused(smollm: Tokenizer) -> None:
    with pytest.raises(PromptFormatError, match=r"needs the special token '<\|start_header_id\|>'"):
        Llama3Format(smollm)
