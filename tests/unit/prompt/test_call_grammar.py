"""What a call grammar allows is read as calls of these tools, with arguments that suit their schemas."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from tests.unit.constraints import walks
from tests.unit.constraints.walks import random_answer

from puna.constraints import Compiler, JsonSchema, Lark
from puna.errors import ConstraintError
from puna.prompt import BUILTIN_TOOLS, ToolDefinition, parse_tool_ids
from puna.prompt.call_grammar import free_answer, must_call
from puna.prompt.family import ToolForm
from puna.tokens import Tokenizer

FORMS: tuple[ToolForm, ...] = ("json", "function_tag", "python_list")
WEATHER = ToolDefinition(
    "get_weather",
    "",
    {
        "type": "object",
        "properties": {
            "unit": {"enum": ["C", "F"]},
            "city": {"type": "string", "maxLength": 8},
            "days": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": 9},
                "maxItems": 3,
            },
            "dry": {"type": "boolean"},
        },
        "required": ["city"],
    },
)
NOW = ToolDefinition("now")
OPTIONAL = ToolDefinition(
    "search.notes-2", "", {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "boolean"}}}
)
TREE = ToolDefinition(
    "plant",
    "",
    {
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/tree"}},
        "required": ["tree"],
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"kind": {"const": "oak"}, "next": {"$ref": "#/$defs/tree"}},
                "required": ["kind"],
                "additionalProperties": False,
            }
        },
    },
)
SETS = [
    (WEATHER,),
    (NOW,),
    (WEATHER, NOW, OPTIONAL),
    (TREE, NOW),
    (BUILTIN_TOOLS["brave_search"],),
    (BUILTIN_TOOLS["code_interpreter"], WEATHER),
]


@pytest.fixture(scope="module")
def small(smollm: Tokenizer) -> Compiler:
    return Compiler(smollm, smollm.vocab_size)


@pytest.fixture(scope="module")
def large(llama3: Tokenizer) -> Compiler:
    return Compiler(llama3, llama3.vocab_size)


def end_of(compiler: Compiler) -> int:
    return min(compiler._tokenizer.eos_ids)


def is_allowed(compiler: Compiler, grammar: Lark, text: str) -> bool:
    return walks.is_allowed(compiler, grammar, text, end_of(compiler))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tools", SETS, ids=range(len(SETS)))
@pytest.mark.parametrize("has_tag", [False, True])
def test_random_answers_are_calls(
    tools: tuple[ToolDefinition, ...],
    form: ToolForm,
    several: bool,
    has_tag: bool,
    small: Compiler,
    large: Compiler,
) -> None:
    compiler = large if has_tag else small
    grammar = must_call(tools, form, strict=[t.name for t in tools], several=several, has_tag=has_tag)
    names, n_most = set(), 0
    for seed in range(8):
        ids = random_answer(compiler, grammar, end_of(compiler), seed)
        if ids is None:
            continue
        answer = parse_tool_ids(ids, tools, compiler._tokenizer)
        told = compiler._tokenizer.decode(ids, show_special=True)
        assert (answer.text, answer.problems) == ("", ()), told
        assert answer.calls, told
        names |= {call.name for call in answer.calls}
        n_most = max(n_most, len(answer.calls))
        for call in answer.calls:
            tool = next(tool for tool in tools if tool.name == call.name)
            jsonschema.validate(call.arguments, dict(tool.parameters))
            assert set(call.arguments) <= set(tool.properties)
    assert names
    assert (n_most > 1) == several or several


@pytest.mark.parametrize("form", FORMS)
def test_calls_go_on_only_where_they_may(form: ToolForm, small: Compiler) -> None:
    told = {
        "json": '{"name": "now", "parameters": {}}',
        "function_tag": "<function=now>{}</function>",
        "python_list": "[now()]",
    }[form]
    two = {"json": f"{told}; {told}", "function_tag": told * 2, "python_list": "[now(), now()]"}[form]
    for several in (False, True):
        grammar = must_call([NOW], form, several=several, has_tag=False)
        assert is_allowed(small, grammar, told)
        assert is_allowed(small, grammar, two) == several


def test_json_may_come_in_place_of_a_call(small: Compiler) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    for form in FORMS:
        grammar = must_call([NOW], form, several=True, has_tag=False, instead=JsonSchema(schema))
        assert is_allowed(small, grammar, '{"x": 12}')
        assert not is_allowed(small, grammar, "hello")
    assert is_allowed(
        small, must_call([NOW], "json", several=True, has_tag=False), '{"name": "now", "parameters": {}}'
    )


def test_what_a_schema_has_that_cannot_be_enforced(small: Compiler) -> None:
    odd = ToolDefinition(
        "odd",
        "",
        {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}, "required": ["a"]},
    )
    for form in FORMS:
        ids = random_answer(small, must_call([odd], form, several=False, has_tag=False), end_of(small), 1)
        assert ids
        with pytest.raises(ConstraintError, match="uniqueItems"):
            small.prepare(must_call([odd], form, strict=["odd"], several=False, has_tag=False))
        with pytest.raises(ConstraintError, match="uniqueItems"):
            small.prepare(free_answer([odd], form))


ANY = '{"x": [1]}'
NOT_UNDERSTOOD: list[tuple[Any, str]] = [  # and what may stand there all the same
    ({"type": "string", "pattern": "(?=a)b"}, '"cd"'),
    ({"type": "int"}, ANY),
    ({"type": 7}, ANY),
    ({"type": "string", "minLength": "1"}, '"cd"'),
    ({"$ref": "#/$defs/none"}, ANY),
    ({"$ref": "https://example.org/s.json"}, ANY),
    ({"enum": "abc"}, ANY),
    ({"type": "integer", "minimum": 2**63}, "7"),
    ({"type": "integer", "multipleOf": 1_000_003}, "7"),
    (5, ANY),
]
CALLS = (
    '{{"name": "odd", "parameters": {arguments}}}',
    "<function=odd>{arguments}</function>",
    "[odd(a={a}, n={n})]",
)


def may_call_odd(compiler: Compiler, grammar: Lark, a: str, n: str) -> bool:
    """Whether a call is allowed in one of the forms, since not all tools can be called in all of them."""
    arguments = f'{{"a": {a}, "n": {n}}}'
    texts = [call.format(arguments=arguments, a=a, n=n) for call in CALLS]
    return any(is_allowed(compiler, grammar, text) for text in texts)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("schema", "value"), NOT_UNDERSTOOD, ids=range(len(NOT_UNDERSTOOD)))
def test_what_is_not_understood_binds_no_tool_but_a_strict_one(
    schema: Any, value: str, form: ToolForm, small: Compiler
) -> None:
    properties = {"a": schema, "n": {"type": "integer"}}
    odd = ToolDefinition("odd", "", {"type": "object", "properties": properties, "required": ["a", "n"]})
    grammar = must_call([odd, NOW], form, several=False, has_tag=False)
    assert may_call_odd(small, grammar, value, "5")
    assert may_call_odd(small, grammar, ANY, "5") == (value is ANY)
    assert not may_call_odd(small, grammar, value, '"5"')
    with pytest.raises(ConstraintError):
        small.prepare(must_call([odd, NOW], form, strict=["odd"], several=False, has_tag=False))


NOTHING: list[Any] = [
    {"enum": []},
    {"type": "integer", "minimum": 5, "maximum": 3},
    {"type": "string", "minLength": 5, "maxLength": 3},
    {"type": "array", "items": {"enum": []}, "minItems": 1},
    False,
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_strict", [False, True])
@pytest.mark.parametrize("schema", NOTHING, ids=str)
def test_a_tool_that_no_arguments_suit_is_refused(schema: Any, is_strict: bool, form: ToolForm) -> None:
    parameters = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    strict = ["odd"] if is_strict else []
    odd = ToolDefinition("odd", "", parameters)
    with pytest.raises(
        ConstraintError, match=r"tool 'odd' cannot be called, since nothing suits its `parameters`: .*'a'"
    ):
        must_call([odd, NOW], form, strict=strict, several=False, has_tag=False)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("schema", NOTHING, ids=str)
def test_a_tool_that_some_arguments_suit_may_be_called(schema: Any, form: ToolForm, small: Compiler) -> None:
    parameters = {"type": "object", "properties": {"n": {"type": "integer"}, "a": schema}}
    for more in ({}, {"required": ["n"]}):
        odd = ToolDefinition("odd", "", {**parameters, **more})
        grammar = must_call([odd], form, several=False, has_tag=False)
        texts = [call.format(arguments='{"n": 5}') for call in CALLS[:2]]
        assert any(is_allowed(small, grammar, text) for text in [*texts, "[odd(n=5)]"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("more", [{"patternProperties": {"(?=a)": {}}}, {"minProperties": "1"}], ids=str)
def test_arguments_are_any_object_where_a_whole_schema_is_not_understood(
    more: dict[str, Any], form: ToolForm, small: Compiler
) -> None:
    odd = ToolDefinition("odd", "", {"type": "object", "properties": {"a": {"type": "null"}}, **more})
    grammar = must_call([odd], form, several=False, has_tag=False)
    assert may_call_odd(small, grammar, "[1]", "null")
    for call in CALLS[:2]:
        assert not is_allowed(small, grammar, call.format(arguments="5"))


STRICT = ToolDefinition(
    "add",
    "",
    {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "m": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    },
)
FREE: dict[ToolForm, list[tuple[str, bool]]] = {
    "json": [
        ('Just a text, with {braces} and "name" in it.\n', True),
        ('{"name": "add", "parameters": {"n": 5}}', True),
        ('Let me see.\n{ "name":"add" , "arguments": {"n": 5, "m": -1}} and on.', True),
        ('{"name": "add", "parameters": {"n": "5"}}', False),
        ('{"name": "add", "parameters": {"x": 5}}', False),
        ('{"name": "sub", "parameters": {"x": 5}}', True),
        ('{"name": "add", "parameters": {"n": 5}}; {"name": "add", "parameters": {}}', False),
    ],
    "function_tag": [
        ("a <b> c", True),
        ('<function=add>{"n": 5}</function> so', True),
        ('<function=add>{"n": true}</function>', False),
    ],
    "python_list": [
        ("one [1] (two)", True),
        ("[add(n=5)]", True),
        ("[add(n=5, m=6), add(n=1)]", True),
        ("[add(m=6)]", False),
        ('[add(n="x")]', False),
        ("talk of add(x) is free", True),
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_free_answer_is_held_to_the_schema_from_its_call_on(form: ToolForm, small: Compiler) -> None:
    grammar = free_answer([STRICT], form)
    for text, is_fine in FREE[form]:
        assert is_allowed(small, grammar, text) == is_fine, text


def test_names_of_all_kinds_are_spelled_in_a_way_that_is_read() -> None:
    names: list[Any] = ["f", "a.b", "a-b", "_x9"]
    tools = [
        ToolDefinition(name, "", {"type": "object", "properties": {"q": {"type": "string"}}})
        for name in names
    ]
    for form in FORMS:
        text = must_call(tools, form, several=True, has_tag=True).grammar
        assert all(name in text for name in names)
