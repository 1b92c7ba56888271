from __future__ import annotations

from typing import Any

import pytest
from tests.unit.prompt.conftest import golden_content, golden_message, reference_style

from puna.errors import PromptFormatError
from puna.models.checkpoint import Vocabulary
from puna.prompt import (
    BUILTIN_TOOLS,
    Assistant,
    CallStyle,
    Image,
    Message,
    System,
    Tool,
    ToolCall,
    User,
    chat_format,
    parse_tool_ids,
)
from puna.prompt.images import image_ranges
from puna.prompt.llama3 import Llama3Format
from puna.tokens import Tokenizer


def encode(tokenizer: Tokenizer, vector: dict[str, Any], style: CallStyle) -> list[int]:
    form = Llama3Format(tokenizer, "llama3.2-vision", style=style)
    if vector["mode"] == "content":
        return form.encode_text(golden_content(vector["messages"]))
    return form.encode_chat([golden_message(raw) for raw in vector["messages"]])


def test_golden_vectors(llama3: Tokenizer, golden: Any) -> None:
    vectors = [v for v in golden("prompt_format.jsonl") if not v["error"]]
    assert {vector["mode"] for vector in vectors} == {"dialog", "content"}
    assert len(vectors) == 97
    for vector in vectors:
        ids = encode(llama3, vector, reference_style(vector["tool_prompt_format"]))
        assert ids == vector["token_ids"], vector["id"]
        assert [list(span) for span in image_ranges(ids)] == (vector["vision_mask"] or []), vector["id"]


# Quotes in a query, and two programs in a row, are what the reference writes so that it cannot be read back;
# docs/prompt_formats.md has the two.
READ_BACK_ONLY_OUR_WAY = {"pf-068", "pf-073"}


def test_calls_are_spelled_as_the_reference_does_unless_that_cannot_be_read(
    llama3: Tokenizer, golden: Any
) -> None:
    vectors = [v for v in golden("prompt_format.jsonl") if not v["error"]]
    other = {
        v["id"]
        for v in vectors
        if encode(llama3, v, CallStyle(form=v["tool_prompt_format"] or "json")) != v["token_ids"]
    }
    assert other == READ_BACK_ONLY_OUR_WAY


def test_pictures_keep_their_place(vision_tokenizer: Tokenizer, llama3: Tokenizer) -> None:
    # Meta's vocabulary and transformers' differ in the name of the token, not in what the model reads.
    for tokenizer in (llama3, vision_tokenizer):
        form = Llama3Format(tokenizer, "llama3.2-vision")
        ids = form.encode_chat([Tool(("a", Image(b"x"), "b")), User("c", context=(Image(), "d"))])
        assert form.image_id == 128256
        assert [i for i, token in enumerate(ids) if token == 128256] == [7, 16]
        assert image_ranges(ids) == [(7, 16), (16, 23)]


def test_pictures_are_refused_by_text_models(llama3_format: Llama3Format) -> None:
    for use in (llama3_format.encode_text, lambda content: llama3_format.encode_chat([User(content)])):
        with pytest.raises(PromptFormatError, match="reads text only, and a message has a picture in it"):
            use(("a", Image()))


def test_last_message_stays_open(llama3_format: Llama3Format, llama3: Tokenizer) -> None:
    ids = llama3_format.encode_chat([User("Count."), Assistant("One, two")], continue_last=True)
    assert llama3.decode(ids, show_special=True) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nCount.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nOne, two"
    )


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([], "must be the assistant's, got none"),
        ([Assistant("a"), User("u")], "must be the assistant's, got user"),
        ([Assistant("a", tool_calls=(ToolCall("f"),))], "must not call tools"),
    ],
)
def test_only_the_assistants_words_can_go_on(
    llama3_format: Llama3Format, messages: list[Message], found: str
) -> None:
    with pytest.raises(PromptFormatError, match=f"the last message {found}"):
        llama3_format.encode_chat(messages, continue_last=True)


def test_stop_ids(llama3_format: Llama3Format) -> None:
    assert llama3_format.stop_ids == {128001, 128008, 128009}


def test_first_llama3_knows_no_calls(april_vocabulary: Vocabulary) -> None:
    form = chat_format(april_vocabulary, Tokenizer(april_vocabulary))
    assert form.name == "llama3"
    assert form.stop_ids == {128001, 128009}
    assert form.encode_chat([Assistant("a", ends_turn=False)]).count(128009) == 1
    program = ToolCall("code_interpreter", {"code": "1"})
    with pytest.raises(PromptFormatError, match=r"needs the special token '<\|python_tag\|>'"):
        form.encode_chat([Assistant("a", tool_calls=(program,))])


def test_searches_get_a_tag_where_that_is_wanted(llama3: Tokenizer) -> None:
    calls = (ToolCall("brave_search", {"query": "a"}), ToolCall("f", {"b": 1}))
    tagged = Llama3Format(llama3, style=CallStyle(tags_builtin=True)).encode_chat(
        [Assistant("x", tool_calls=calls)]
    )
    assert 'x<|python_tag|>brave_search.call(query="a"){"type": ' in llama3.decode(tagged, show_special=True)


def test_what_the_reference_writes_there_is_no_such_call(
    llama3: Tokenizer, llama3_vocabulary: Vocabulary, golden: Any
) -> None:
    tools = BUILTIN_TOOLS.values()
    found = {v["id"]: v for v in golden("prompt_format.jsonl") if v["id"] in READ_BACK_ONLY_OUR_WAY}
    for name, vector in found.items():
        messages = [golden_message(raw) for raw in vector["messages"]]
        calls = next(m.tool_calls for m in messages if isinstance(m, Assistant))
        for is_reference in (True, False):
            style = CallStyle(is_reference=is_reference)
            ids = chat_format(llama3_vocabulary, llama3, style=style).encode_chat(messages)
            assert (ids == vector["token_ids"]) == is_reference
            start = max(i for i, token in enumerate(ids[:-4]) if token == 271) + 1  # behind its header
            answer = ids[start:-4]
            read = parse_tool_ids(answer, tools, llama3).calls
            same = [(c.name, c.arguments) for c in read] == [(c.name, c.arguments) for c in calls]
            assert same == (not is_reference), name


def test_vocabulary_without_headers_is_refused(smollm: Tokenizer) -> None:
    with pytest.raises(PromptFormatError, match=r"needs the special token '<\|start_header_id\|>'"):
        Llama3Format(smollm)


def test_unknown_family_is_refused(llama3: Tokenizer) -> None:
    with pytest.raises(PromptFormatError, match=r"is called 'llama3\.4'; did you mean 'llama3\.3'"):
        Llama3Format(llama3, "llama3.4")


def test_system_and_context_are_encoded_apart(llama3_format: Llama3Format, llama3: Tokenizer) -> None:
    ids = llama3_format.encode_chat([System(("gra", "ss")), User("q\n", context="\n\nc")])
    parts = [llama3.encode(text) for text in ("gra", "ss", "q\n", "\n\n", "\n\nc")]
    assert ids[5:7] == parts[0] + parts[1]
    message = [token for part in parts[2:] for token in part]
    assert message == ids[12 : 12 + len(message)]
