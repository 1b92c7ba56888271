"""Schemas of strangers: the same verdicts as jsonschema, in bounded time."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from puna.errors import PromptFormatError
from puna.prompt.schema_limits import bounded_validator, check_patterns, first_error

SCHEMAS: list[Any] = [
    {"properties": {"a": {"pattern": "^h.m$"}}},
    {"patternProperties": {"^x": {"type": "integer"}}},
    {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
    {
        "properties": {"a": True},
        "patternProperties": {"x$": True},
        "additionalProperties": {"type": "string"},
    },
    {"propertyNames": {"pattern": "^[a-z]+$"}},
    {"anyOf": [{"required": ["a"]}, {"properties": {"b": {"pattern": "é|\\d{2}"}}, "required": ["b"]}]},
    {"$ref": "#/$defs/d", "$defs": {"d": {"additionalProperties": {"pattern": "m"}}}},
]
VALUES: list[Any] = [
    {},
    {"a": "hum"},
    {"a": "hums"},
    {"x1": 1},
    {"x1": "one"},
    {"y": "m"},
    {"y": 1},
    {"A": "m"},
    {"b": "é"},
    {"b": "07"},
    {"b": "x"},
    [],
    "hum",
]


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_verdicts_are_those_of_jsonschema(schema: Any, value: Any) -> None:
    check_patterns(schema)
    is_valid = first_error(bounded_validator(schema), value) is None
    assert is_valid == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "(.*a){20}$", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_a_costly_pattern_is_linear(pattern: str) -> None:
    schema = {"properties": {"a": {"pattern": pattern}}, "patternProperties": {pattern: True}}
    check_patterns(schema)
    text = "a" * 20_000 + "!"
    assert first_error(bounded_validator(schema), {"a": text, text: 1}) is not None


@pytest.mark.parametrize("draft", [Draft7Validator, Draft202012Validator])
def test_a_part_that_names_a_draft_has_the_same_bounds(draft: Any) -> None:
    schema = {"properties": {"a": {"$schema": draft.META_SCHEMA["$schema"], "pattern": "^(a+)+$"}}}
    assert first_error(bounded_validator(schema), {"a": "a" * 20_000 + "!"}) is not None


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"pattern": "["}, r"the pattern '\[' cannot be used: unclosed character class"),
        ({"pattern": "(?=a)"}, "look-around"),
        ({"items": [{"patternProperties": {"(a)\\1": {}}}]}, "backreferences"),
        ({"pattern": "a" * 1001}, "may have 1000 characters, got 1001"),
        ({"pattern": "\\w{1000}"}, "cannot be used"),
        ({"allOf": [{"pattern": f"a{i}"} for i in range(33)]}, "may have 32 patterns, got 33"),
        ({"patternProperties": {}, "unevaluatedProperties": False}, "is not supported"),
    ],
)
def test_what_cannot_be_applied_in_bounded_time_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(PromptFormatError, match=message):
        check_patterns(schema)


def test_a_schema_that_doubles_with_every_line_is_given_up() -> None:
    definitions: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**definitions, "d30": {"type": "object"}}}
    with pytest.raises(PromptFormatError, match="too often"):
        first_error(bounded_validator(schema), {})


def test_a_schema_of_many_keywords_is_applied() -> None:
    schema = {"properties": {f"p{i}": {"type": "string", "minLength": 1, "pattern": "x"} for i in range(500)}}
    assert first_error(bounded_validator(schema), {f"p{i}": "x" for i in range(500)}) is None
