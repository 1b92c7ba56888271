from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from puna.prompt import BUILTIN_TOOLS, Assistant, ToolCall, ToolDefinition, parse_tool_calls, parse_tool_ids
from puna.prompt.call_forms import MAX_CALLS
from puna.tokens import Tokenizer

ROOT = Path(__file__).parents[3]
DECISIONS = json.loads((ROOT / "tests/golden/tool_decisions.json").read_text())
NAMES = ("f", "g", "ping", "get_weather", "trending_songs", "getWeather", "get_user_info")
TOOLS = [*BUILTIN_TOOLS.values(), *(ToolDefinition(name, "", {"type": "object"}) for name in NAMES)]
STOPS = {True: "end_of_turn", False: "end_of_message"}


def test_golden_vectors(golden: Any) -> None:
    decided = set()
    for vector in golden("tool_parse.jsonl"):
        answer = parse_tool_calls(vector["text"], TOOLS)
        calls = [{"name": call.name, "arguments": call.arguments} for call in answer.calls]
        expected = vector["expected"]
        if vector["id"] in DECISIONS:
            decision = DECISIONS[vector["id"]]
            decided.add(vector["id"])
            assert (calls, answer.text) == (decision["calls"], decision["text"]), vector["id"]
            assert [p.reason for p in answer.problems] == decision["problems"], vector["id"]
            continue
        assert not vector["reference_questionable"], vector["id"]
        assert calls == [
            {"name": c["tool_name"], "arguments": c["arguments"]} for c in expected["tool_calls"]
        ], vector["id"]
        assert answer.text == expected["content"], vector["id"]
        stop = vector["stop_reason_in"] if answer.ends_turn is None else STOPS[answer.ends_turn]
        assert stop == expected["stop_reason"], vector["id"]
    assert decided == set(DECISIONS)


def test_decisions_are_written_down(golden: Any) -> None:
    rules = set(re.findall(r"^\*\*([a-z-]+)\*\*", (ROOT / "docs/tool_calls.md").read_text(), re.MULTILINE))
    assert {decision["rule"] for decision in DECISIONS.values()} <= rules
    # Where the reference is not in question and Puna differs all the same, because of its own rules.
    questionable = {v["id"] for v in golden("tool_parse.jsonl") if v["reference_questionable"]}
    beyond = {name: DECISIONS[name]["rule"] for name in set(DECISIONS) - questionable}
    assert beyond == {"tp-019": "every-call", "tp-021": "never-run-instead", "tp-077": "text-kept"}


def one(name: str, **arguments: Any) -> tuple[ToolCall, ...]:
    return (ToolCall(name, arguments),)


SEARCH = 'brave_search.call(query="x")'
JSON = '{"name": "f", "parameters": {"a": 1}}'


@pytest.mark.parametrize(
    ("text", "calls", "rest"),
    [
        ("Sure.\n[f(a=1)]\nDone.", one("f", a=1), "Sure.\nDone."),
        (f"Sure: {JSON}", one("f", a=1), "Sure: "),
        (f"{JSON}; {JSON}", one("f", a=1) * 2, ""),
        (f"{JSON}{JSON}\n{JSON}\n", one("f", a=1) * 3, ""),
        ("[f(a=1)][g()]", one("f", a=1) + one("g"), ""),
        ("[f(a=1), g(),]", one("f", a=1) + one("g"), ""),
        ("[\n  f(\n a = 1 ,\n),\n\tg()\n]", one("f", a=1) + one("g"), ""),
        (f"Well,\n  {SEARCH}", one("brave_search", query="x"), "Well,\n  "),
        (f"<|python_tag|>{SEARCH}\n\n{JSON}", one("brave_search", query="x") + one("f", a=1), ""),
        (f"Hm <|python_tag|>{SEARCH}<|eom_id|>", one("brave_search", query="x"), "Hm "),
        ("<|python_tag|><function=f>{}</function>", one("f"), ""),
        ('<|python_tag|>[f(x) for x in "ab"]', (), '[f(x) for x in "ab"]'),
        ('<|python_tag|>[h(x) for x in "ab"]', one("code_interpreter", code='[h(x) for x in "ab"]'), ""),
        ("<|python_tag|>a.call(1)", one("code_interpreter", code="a.call(1)"), ""),
        ("<|python_tag|>{'a': 1}", one("code_interpreter", code="{'a': 1}"), ""),
        ("<|python_tag|>  # x<|python_tag|>", one("code_interpreter", code="  # x<|python_tag|>"), ""),
        ("<function=f>{'a': 'it\\'s', 'b': None}</function>", one("f", a="it's", b=None), ""),
        ("<function=f>{}</function> and <function=g>{}</function>", one("f") + one("g"), " and "),
        ('{"name": "f", "arguments": {"a": 1}}', one("f", a=1), ""),
        ('{"name": "f", "arguments": "{\\"a\\": [1]}"}', one("f", a=[1]), ""),
        ('{"parameters": {"a": 1}, "id": "x", "type": "function", "name": "f"}', one("f", a=1), ""),
        ('{"name": "f"}', one("f"), ""),
        ('{"name": "f", "parameters": {"a": "\\ud83e\\udd99\\/\\n"}}', one("f", a="🦙/\n"), ""),
        ('{"name": "brave_search", "parameters": {"q": "x"}}', one("brave_search", query="x"), ""),
        ("[f(a='''x\n'y''', b=\"\", c=r'\\n', d='\\x41\\101\\u00e9\\\n')]",
         one("f", a="x\n'y", b="", c="\\n", d="AAé"), ""),
        ("[f(a=0b1, b=0o7, c=.5, d=5., e=-0, f=((1)), g=(1,), h=())]",
         one("f", a=1, b=7, c=0.5, d=5.0, e=0, f=1, g=[1], h=[]), ""),
        ("[f(**{'a b': 1}, c=2)]", one("f", **{"a b": 1, "c": 2}), ""),
        ("[f(a=null, b=false)]", one("f", a=None, b=False), ""),
        (f"```\n{JSON}\n```\n{JSON}", one("f", a=1), f"```\n{JSON}\n```\n"),
        (f"```json\n{JSON}\n{SEARCH}\n<function=f>{{}}</function>", (), ...),
        (f"Use {SEARCH}", (), ...),
        (f"{SEARCH} or not", (), ...),
        ("[1] is a source, [f(x)] a link", (), ...),
        ('{"name": "Ann", "age": 5}', (), ...),
        ('{"foo": {"name": "f", "parameters": {}}}', (), ...),
        ("a <b> c < d <function> {x} { } [] {", (), ...),
        ("<|eot_id|> <|eom_id|", (), ...),
        ("", (), ...),
    ],
)  # fmt: skip
def test_what_is_a_call(text: str, calls: tuple[ToolCall, ...], rest: Any) -> None:
    answer = parse_tool_calls(text, TOOLS)
    assert answer.calls == calls
    assert answer.text == (text.replace("<|python_tag|>", "") if rest is ... else rest)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"name": "h", "parameters": {"a": 1}}', "no tool is called 'h'"),
        ("<function=h>{}</function>", "no tool is called 'h'"),
        ("[h(a=1)]", "no tool is called 'h'"),
        ("[h()]", "no tool is called 'h'"),
        ("[f(a=1), h(b=2)]", "no tool is called 'h'"),
        (f"{JSON} and so on", "text stands behind a call, which must be the last thing on its line"),
        (f"{JSON} {SEARCH}x", "text stands behind a call, which must be the last thing on its line"),
        ('{"name": "f", "name": "g"}', "`name` is there twice"),
        ('{"name": "f", "parameters": [1]}', "the arguments of f must be an object, got [1]"),
        ('{"name": "f" "parameters": {}}', "`,` or `}` must stand before '\"'"),
        ('{"name": "f", "parameters": {"a": 01}}', "01 is no number that JSON has"),
        ('{"name": "f", "parameters": {"a": 1e999}}', "1e999 is no number that JSON has"),
        ('{"name": "f", "parameters": {"a": "\n"}}', "a text must not hold '\\n' as it is"),
        ('{"name": "f", "parameters": {"a": "\\x"}}', "JSON has no escape `\\x`"),
        ('{"name": "f", "parameters": {"a": 1,}}', "a text in quotes is needed, got '}'"),
        ('{"name": "f", "parameters": {\'a\': 1}}', 'a text in quotes is needed, got "\'"'),
        ('{"name": "f", "parameters": {"a": ' + "[" * 70, "values are nested more than 64 deep"),
        ('{"name": "f", "parameters": {"a": ' + "1" * 5000, "a number may have 4000 digits, got 5000"),
        ("[f(a=1", "`,` or `)` must stand before 'the end'"),
        ("[f(a='x", "a text has no closing quote"),
        ("[f(a=b'\\xe9')]", "bytes must be ASCII to be a text"),
        ("[f(a='\\N{DASH}')]", "characters by name are not read"),
        ("[f(a='\\uD8')]", "an escaped character needs 4 digits"),
        ("[f(a='\\U00110000')]", "no character has the number 00110000"),
        ("[f(a={1: 2})]", "a text in quotes is needed, got '1'"),
        ("[f(a={'x'})]", "a key must have a value; sets are not JSON"),
        ("[f(*[1])]", "arguments must have names"),
        ("[f(**[1])]", "`**` must stand before an object"),
        ("[f(a=1j)]", "1j is no number that JSON has"),
        ("[f(a=01)]", "01 is no number that JSON has"),
        ("<function=f>{}</func>", "a call's tag must end with '</function>'"),
        ("<function=f>[1]</function>", "the arguments must follow the tag of f at once, as a JSON object"),
        ("brave_search.call(query=1)", "brave_search takes one text, 'query', got ['query']"),
        ("brave_search.call(a='x', b='y')", "brave_search takes one text, 'query', got ['a', 'b']"),
        ("brave_search.call('x')", "arguments must have names"),
        ("web.h.call(a=1)", "no tool is called 'h'"),
    ],
)  # fmt: skip
def test_what_is_not_a_call_says_why(text: str, reason: str) -> None:
    for before in ("", "<|python_tag|>"):
        answer = parse_tool_calls(before + text, TOOLS)
        assert (answer.calls, answer.text) == ((), text)
        assert [problem.reason for problem in answer.problems] == [reason]
        assert text.startswith(answer.problems[0].text)


def test_arguments_are_held_against_the_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    tools = [ToolDefinition("f", "", schema)]
    assert parse_tool_calls("[f(a=1)]", tools).calls == one("f", a=1)
    for text, reason in (
        ("[f()]", "arguments of f: 'a' is a required property"),
        ('<function=f>{"a": "1"}</function>', "arguments of f['a']: '1' is not of type 'integer'"),
    ):
        answer = parse_tool_calls(text, tools)
        assert (answer.calls, answer.text) == ((), text)
        (problem,) = answer.problems
        assert problem.reason == reason
        assert text.startswith(problem.text)


def test_nothing_is_run_where_no_code_interpreter_is_offered() -> None:
    answer = parse_tool_calls("<|python_tag|>print(1)<|eom_id|>", [BUILTIN_TOOLS["brave_search"]])
    assert (answer.calls, answer.text, answer.ends_turn) == ((), "print(1)", False)
    assert [p.reason for p in answer.problems] == [
        "the answer is a program, and there is no code interpreter to run it"
    ]


def test_without_tools_everything_is_text() -> None:
    text = f"{JSON}\n[f()]\n{SEARCH}\n<function=f>{{}}</function>"
    assert parse_tool_calls(text, []).text == text


def test_an_answer_becomes_a_message() -> None:
    answer = parse_tool_calls(f"Hm.\n{JSON}<|eom_id|>", TOOLS)
    assert answer.message() == Assistant("Hm.\n", ends_turn=False, tool_calls=one("f", a=1))
    assert parse_tool_calls("Hm.", TOOLS).message() == Assistant("Hm.")


def test_calls_are_counted() -> None:
    answer = parse_tool_calls("[ping()]\n" * (MAX_CALLS + 1), TOOLS)
    assert len(answer.calls) == MAX_CALLS
    assert (answer.text, answer.problems[0].reason) == ("[ping()]\n", "an answer may hold 128 calls")


def test_no_call_reaches_over_a_tag(llama3: Tokenizer) -> None:
    program = "print(1)\n[f()]"
    tagged = [128010, *llama3.encode(program)]
    for start in (
        '{"name": "f", "parameters": {"a": "',
        "[f(a='x",
        "<function=f",
        '{"name": "f", ',
        "[f(a=1)] [",
    ):
        answer = parse_tool_ids([*llama3.encode(start), *tagged], TOOLS, llama3)
        assert (answer.calls, answer.text) == (one("code_interpreter", code=program), start)
    no_code = [tool for tool in TOOLS if tool.name != "code_interpreter"]
    answer = parse_tool_ids(tagged, no_code, llama3)
    assert (answer.calls, answer.text) == ((), program)


def test_only_the_token_is_a_tag(llama3: Tokenizer) -> None:
    written = llama3.encode("<|python_tag|>print(1)")
    answer = parse_tool_ids([*written, 128009], TOOLS, llama3)
    assert (answer.calls, answer.text, answer.ends_turn) == ((), "<|python_tag|>print(1)", True)
    programs = [128010, *llama3.encode(" x = '🦙' "), 128010, *llama3.encode("y<|eot_id|>"), 128008]
    answer = parse_tool_ids([*llama3.encode("a "), *programs], TOOLS, llama3)
    assert [call.arguments["code"] for call in answer.calls] == [" x = '🦙' ", "y<|eot_id|>"]
    assert (answer.text, answer.ends_turn) == ("a ", False)
