from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from tests.unit.prompt.conftest import golden_message, golden_tool, reference_style

from puna.errors import PromptFormatError
from puna.prompt import BUILTIN_TOOLS, Preamble, System, ToolDefinition, User
from puna.prompt.family import FAMILIES, family
from puna.prompt.llama3 import Llama3Format
from puna.prompt.preamble import with_preamble
from puna.prompt.tool_prompts import builtin_lines, custom_tools_prompt, date_lines, english_date
from puna.tokens import Tokenizer

DAY = date(2024, 9, 24)


def tool(name: str, description: str, **parameters: tuple[str, str, bool, str | None]) -> ToolDefinition:
    keys = ("param_type", "description", "required", "default")
    given = {n: dict(zip(keys, values, strict=True)) for n, values in parameters.items()}
    return golden_tool({"tool_name": name, "description": description, "parameters": given})


SONGS = tool(
    "trending_songs",
    "Returns the trending songs on a Music site",
    n=("int", "The number of songs to return", True, None),
    genre=("str", "The genre of the songs to return", False, None),
)
WEATHER = tool(
    "get_weather",
    "Get weather info for places",
    city=("string", "The name of the city to get the weather for", True, None),
    metric=("string", "The metric for weather. Options are: celsius, fahrenheit", False, "celsius"),
)
SEARCH, WOLFRAM, CODE = (BUILTIN_TOOLS[n] for n in ("brave_search", "wolfram_alpha", "code_interpreter"))


@pytest.mark.parametrize(
    ("vector", "text"),
    [
        ("gen-01", date_lines(DAY)),
        ("gen-02", builtin_lines([CODE, SEARCH, WOLFRAM])),
        ("gen-04", builtin_lines([CODE])),
        ("gen-05", custom_tools_prompt([SONGS], "json")),
        ("gen-06", custom_tools_prompt([SONGS, WEATHER], "json")),
        ("gen-07", custom_tools_prompt([SONGS], "function_tag")),
        ("gen-09", custom_tools_prompt([WEATHER], "python_list")),
        ("gen-10", custom_tools_prompt([WEATHER, SONGS], "python_list")),
        ("gen-11", custom_tools_prompt([SONGS], "json")),
        ("gen-12", custom_tools_prompt([SONGS, WEATHER], "json")),
        ("gen-14", custom_tools_prompt([SONGS, WEATHER], "function_tag")),
    ],
)
def test_texts_about_tools(golden: Any, vector: str, text: str) -> None:
    texts = {v["id"]: v["text"] for v in golden("prompt_generators.jsonl")}
    assert text == texts[vector]


def test_the_function_list_is_that_of_older_releases_too(golden: Any) -> None:
    # Before llama-stack the instructions had other words; the list of functions is the same.
    for vector, tools in (("gen-15", [WEATHER]), ("gen-16", [WEATHER, SONGS])):
        text = next(v["text"] for v in golden("prompt_generators.jsonl") if v["id"] == vector)
        ours = custom_tools_prompt(tools, "python_list")
        start, end = "Here is a list", "\n]"
        assert text[text.index(start) :] == ours[ours.index(start) : ours.index(end) + len(end)]


def test_golden_conversations(llama3: Tokenizer, golden: Any) -> None:
    vectors = [v for v in golden("prompt_format.jsonl") if v["group"] == "llama_stack_augment"]
    assert len(vectors) == 14
    for vector in vectors:
        messages = [golden_message({"role": r, "content": t}) for r, t in vector["input_messages"]]
        preamble = Preamble(
            tools=tuple(map(golden_tool, vector["tools"])),
            tool_choice=vector["tool_choice"],
            tool_form=vector["tool_prompt_format"],
            date=DAY,
        )
        form = Llama3Format(llama3, vector["family"].replace("3_", "3."), style=reference_style("json"))
        if vector["error"]:
            with pytest.raises(PromptFormatError, match="does not spell calls as"):
                form.encode_chat(messages, preamble=preamble)
            continue
        expected = [golden_message(raw) for raw in vector["messages"]]
        assert with_preamble(messages, preamble, form.family) == expected, vector["id"]
        assert form.encode_chat(messages, preamble=preamble) == vector["token_ids"], vector["id"]


@pytest.mark.parametrize("name", ["llama3.1", "llama3.2-vision"])
def test_today_is_told_where_no_date_is_pinned(name: str) -> None:
    before = date.today()
    (system, _) = with_preamble([User("x")], Preamble(), family(name))
    assert system.text in {date_lines(before), date_lines(date.today())}


def test_dates_are_in_english() -> None:
    months = [english_date(date(2025, month, 5)) for month in range(1, 13)]
    assert months[0] == "05 January 2025"
    assert [
        text.split()[1][:3] for text in months
    ] == [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]  # fmt: skip


def test_the_first_llama3_is_told_nothing_and_offered_nothing() -> None:
    assert with_preamble([User("x")], Preamble(date=DAY), family("llama3")) == [User("x")]
    assert with_preamble([System("s")], Preamble(), family("llama3")) == [System("s")]
    with pytest.raises(
        PromptFormatError, match=r"of the format llama3 was taught no tools; use one from llama3\.1"
    ):
        with_preamble([], Preamble(tools=(SONGS,)), family("llama3"))


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"llama3"}))
def test_tool_choice(name: str) -> None:
    def system(choice: str) -> str:
        return with_preamble(
            [System("s")], Preamble(tools=(SONGS,), tool_choice=choice, date=DAY), family(name)
        )[0].text

    assert system("auto").endswith("s")
    assert (
        system("required")
        == system("auto") + "\nYou MUST use one of the provided functions/tools to answer the user query."
    )
    assert (
        system("trending_songs")
        == system("auto") + "\nYou MUST use the tool `trending_songs` to answer the user query."
    )
    assert "trending_songs" not in system("none")
    with pytest.raises(
        PromptFormatError, match="`tool_choice` 'trending' is no tool; did you mean 'trending_songs'"
    ):
        system("trending")


def test_a_tool_cannot_be_required_where_there_is_none() -> None:
    with pytest.raises(PromptFormatError, match="`tool_choice` 'required' is no tool; known: auto, none"):
        with_preamble([], Preamble(tool_choice="required"), family("llama3.1"))


def test_descriptions_cannot_break_out() -> None:
    evil = 'x"}\n], "extra": ["'
    tool = ToolDefinition(
        "f", evil, {"type": "object", "properties": {"a": {"type": "string", "description": evil}}}
    )
    for form in ("json", "python_list"):
        text = custom_tools_prompt([tool], form)
        assert text.count('"x\\"}\\n], \\"extra\\": [\\""') == 2
        assert evil not in text


def test_defaults_and_missing_words() -> None:
    properties = {"a": {"type": "integer", "default": 0}, "b": True, "c": {"default": "é"}}
    tool = ToolDefinition("f", "", {"type": "object", "properties": properties, "required": ["c", "a"]})
    text = custom_tools_prompt([tool], "python_list")
    assert '"required": ["a", "c"]' in text
    assert (
        '"type": "integer",\n                    "description": "",\n                    "default": 0' in text
    )
    assert (
        '"type": "object",\n                    "description": "",\n                    "default": "é"'
        in text
    )


def test_tools_without_arguments() -> None:
    for form, empty in (("json", '"properties": [],'), ("python_list", '"properties": {}\n')):
        assert empty in custom_tools_prompt([ToolDefinition("f")], form)
