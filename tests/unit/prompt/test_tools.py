from __future__ import annotations

from typing import Any

import pytest

from puna.errors import PromptFormatError
from puna.prompt import BUILTIN_TOOLS, ToolDefinition, as_tools
from puna.prompt.tool_schema import ToolSet

OBJECT = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}


def test_both_spellings() -> None:
    function = {"name": "f", "description": "d", "parameters": OBJECT}
    tools = as_tools(
        [
            {"type": "function", "function": function},
            {**function, "name": "g"},
            {"type": "function", "function": {"name": "h"}},
            {"name": "brave_search"},
            ToolDefinition("i", "d"),
            {"type": "function", "function": {**function, "name": "j", "strict": True}},
        ]
    )
    assert tools == [
        ToolDefinition("f", "d", OBJECT),
        ToolDefinition("g", "d", OBJECT),
        ToolDefinition("h", "", {"type": "object", "properties": {}}),
        BUILTIN_TOOLS["brave_search"],
        ToolDefinition("i", "d"),
        ToolDefinition("j", "d", OBJECT, is_strict=True),
    ]


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([{"name": "f"}, {"name": "f"}], r"tools: .* these are there twice: \['f'\]"),
        (["f"], r"tools\[0\]: must be a tool or a mapping .* got 'f'"),
        ([{"type": "function"}], r"tools\[0\]: must be a tool or a mapping"),
        ([{"name": "f g"}], "a tool's name must be .* got 'f g'"),
        ([{"name": ""}], "a tool's name must be .* got ''"),
        ([{"name": "x" * 129}], "a tool's name must be 1 to 128 letters"),
        ([{"name": "f<|eot_id|>"}], r"a tool's name must be .* got 'f<\|eot_id\|>'"),
        ([{"name": "f", "description": 5}], "tool 'f': `description` must be a string"),
        (
            [{"name": "f", "parameters": {"type": "string"}}],
            "tool 'f': `parameters` must be the JSON schema of an object",
        ),
        (
            [{"name": "f", "parameters": {"properties": [1]}}],
            "tool 'f': `parameters` must be the JSON schema",
        ),
        ([{"name": "f", "parameters": [1]}], r"tool 'f': `parameters` must be .* got \[1\]"),
    ],
)
def test_bad_tools_are_refused(tools: Any, message: str) -> None:
    with pytest.raises(PromptFormatError, match=message):
        as_tools(tools)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"a": 1}, None),
        ({}, "arguments of f: 'a' is a required property"),
        ({"a": "1"}, "arguments of f['a']: '1' is not of type 'integer'"),
        ({"a": 0}, "arguments of f['a']: 0 is less than the minimum of 1"),
    ],
)
def test_arguments_are_held_against_the_schema(arguments: dict[str, Any], problem: str | None) -> None:
    assert ToolSet([ToolDefinition("f", "", OBJECT)]).problem("f", arguments) == problem


DRAFT_7 = "http://json-schema.org/draft-07/schema#"

# As MCP servers, zod and generators of other drafts write them.
ODD: list[tuple[dict[str, Any], str]] = [
    ({"type": "int"}, "'int' is not valid"),
    ({"type": "string", "pattern": "^(?!\\.)[a-z]+@"}, "look-around"),
    ({"type": "string", "pattern": "["}, "unclosed character class"),
    ({"type": "number", "minimum": 0, "exclusiveMinimum": True}, "True is not of type 'number'"),
    ({"type": "string", "required": True}, "True is not of type 'array'"),
    ({"anyOf": [{"pattern": f"a{i}"} for i in range(33)]}, "may have 32 patterns, got 33"),
    (5, "5 is not of type 'object', 'boolean'"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("schema", "message"), ODD, ids=range(len(ODD)))
def test_only_a_strict_tool_must_have_a_schema_that_can_be_applied(
    schema: dict[str, Any], message: str
) -> None:
    for draft in ({}, {"$schema": DRAFT_7}):
        parameters = {**draft, "type": "object", "properties": {"a": schema}, "required": ["a"]}
        assert ToolSet([ToolDefinition("f", "", parameters)]).problem("f", {"a": 0}) is None
        with pytest.raises(
            PromptFormatError, match=f"tool 'f': `parameters` is not a JSON schema: .*{message}"
        ):
            ToolSet([ToolDefinition("f", "", parameters, is_strict=True)])


# A text, then numbers; as zod-to-json-schema writes a tuple.
TUPLE = {"type": "array", "items": [{"type": "string"}], "additionalItems": {"type": "number"}}


@pytest.mark.parametrize("draft", [DRAFT_7, DRAFT_7[:-1], "https://json-schema.org/draft/2019-09/schema"])
def test_a_schema_is_read_in_the_older_draft_that_it_names(draft: str) -> None:
    parameters = {"$schema": draft, "type": "object", "properties": {"a": TUPLE}}
    tools = ToolSet([ToolDefinition("f", "", parameters, is_strict=True)])
    assert tools.problem("f", {"a": ["x", 1]}) is None
    assert tools.problem("f", {"a": [1]}) == "arguments of f['a'][0]: 1 is not of type 'string'"
    assert tools.problem("f", {"a": ["x", "y"]}) == "arguments of f['a'][1]: 'y' is not of type 'number'"


@pytest.mark.parametrize("draft", [None, "https://json-schema.org/draft/2020-12/schema", "x", 5])
def test_any_other_schema_is_read_in_draft_2020_12(draft: Any) -> None:
    parameters = {"$schema": draft, "type": "object", "properties": {"a": TUPLE}}
    if draft is None:
        del parameters["$schema"]
    assert ToolSet([ToolDefinition("f", "", parameters)]).problem("f", {"a": [1]}) is None
    with pytest.raises(PromptFormatError, match="tool 'f': `parameters` is not a JSON schema: "):
        ToolSet([ToolDefinition("f", "", parameters, is_strict=True)])


@pytest.mark.parametrize("required", [True, 5, "a", [{}]])
def test_arguments_that_are_needed_are_named_in_a_list(required: Any) -> None:
    tool = {"name": "f", "parameters": {**OBJECT, "required": required}}
    (found,) = as_tools([tool])
    assert (found.required, found.parameters) == ([], {k: OBJECT[k] for k in ("type", "properties")})
    assert ToolSet([found]).problem("f", {"a": 0}) == "arguments of f['a']: 0 is less than the minimum of 1"
    strict = as_tools([{**tool, "strict": True}])
    assert strict[0].required == []
    with pytest.raises(PromptFormatError, match="is not a JSON schema"):
        ToolSet(strict)


@pytest.mark.parametrize("is_strict", [False, True])
def test_null_in_place_of_properties_or_required_is_nothing(is_strict: bool) -> None:
    parameters = {"type": "object", "properties": None, "required": None}
    (found,) = as_tools([{"name": "f", "parameters": parameters, "strict": is_strict}])
    assert (found.properties, found.required, found.parameters) == ({}, [], {"type": "object"})
    assert ToolSet([found]).problem("f", {}) is None


def test_patterns_are_those_of_the_engine_that_applies_them() -> None:
    parameters = {"properties": {"a": {"pattern": r"^\p{Emoji_Component}+$"}}}
    for is_strict in (False, True):
        tools = ToolSet([ToolDefinition("f", "", parameters, is_strict)])
        assert tools.problem("f", {"a": "#1"}) is None
        assert "does not match" in str(tools.problem("f", {"a": "llama"}))


def test_schemas_are_checked_and_nothing_is_fetched() -> None:
    for depth in (300, 30_000):
        deep: dict[str, Any] = {}
        for _ in range(depth):
            deep = {"properties": {"a": deep}}
        with pytest.raises(PromptFormatError, match="is not a JSON schema: it is nested too deeply"):
            ToolSet([ToolDefinition("f", "", deep)])
    with pytest.raises(PromptFormatError, match="is not a JSON schema: Object of type set is not JSON"):
        ToolSet([ToolDefinition("f", "", {"default": {1}})])
    remote = {"properties": {"a": {"$ref": "http://localhost:1/schema.json"}}}
    assert ToolSet([ToolDefinition("f", "", remote)]).problem("f", {"a": 1}) is None
    problem = ToolSet([ToolDefinition("f", "", remote, is_strict=True)]).problem("f", {"a": 1})
    assert problem is not None
    assert problem.startswith("the schema of f cannot be applied: ")
    assert "localhost:1/schema.json" in problem


def test_a_lone_text_goes_where_a_builtin_tool_wants_it() -> None:
    tools = ToolSet(BUILTIN_TOOLS.values())
    assert tools.settle("brave_search", {"q": "x"}) == {"query": "x"}
    assert tools.settle("code_interpreter", {"query": "1"}) == {"code": "1"}
    for arguments in ({"q": 1}, {"a": "x", "b": "y"}, {}):
        assert tools.settle("brave_search", arguments) == arguments
        assert (
            tools.problem("brave_search", arguments)
            == f"brave_search takes one text, 'query', got {sorted(arguments)}"
        )
