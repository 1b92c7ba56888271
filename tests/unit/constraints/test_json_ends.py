"""JSON in which a model would go on for ever."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tests.unit.constraints.bombs import END
from tests.unit.constraints.walks import allowed_by, masks_of

from puna.constraints import Compiler, Constraint, JsonSchema, Regex
from puna.constraints.json_ends import _LONGEST_NAME, _LONGEST_NUMBER
from puna.tokens import Tokenizer


@pytest.fixture(scope="module")
def compiler(smollm: Tokenizer) -> Compiler:
    return Compiler(smollm, smollm.vocab_size)


def insistent(compiler: Compiler, constraint: Constraint, start: str, more: str, limit: int = 400) -> str:
    """What is said by a model that goes on with `more` wherever it may, and else with anything."""
    tokenizer = compiler._tokenizer
    matcher, (wanted,) = compiler.matcher(constraint, [END]), tokenizer.encode(more)
    ids = tokenizer.encode(start)
    for token in ids:
        matcher.take(token)
    while len(ids) < limit and not matcher.is_over:
        allowed = allowed_by(matcher, compiler)
        token = wanted if allowed[wanted] else END if allowed[END] else int(np.flatnonzero(allowed)[0])
        if token == END:
            break
        matcher.take(token)
        ids.append(token)
    return tokenizer.decode(ids)


SCHEMAS: list[Any] = [{"type": "integer"}, {"type": "number"}, {"multipleOf": 7, "type": "integer"}]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_numbers_end(compiler: Compiler, schema: dict[str, Any]) -> None:
    text = insistent(compiler, JsonSchema(schema), "", "8")
    assert _LONGEST_NUMBER <= len(text) <= _LONGEST_NUMBER + 6
    json.loads(text)


def test_every_part_of_a_number_ends(compiler: Compiler) -> None:
    text = insistent(compiler, JsonSchema({"type": "number"}), "1.", "8")
    assert text == "1." + "8" * _LONGEST_NUMBER
    text = insistent(compiler, JsonSchema({"type": "array", "items": {"type": "number"}}), "[1e", "8")
    assert text.startswith("[1e" + "8" * _LONGEST_NUMBER)
    assert not text.startswith("[1e" + "8" * (_LONGEST_NUMBER + 1))


def test_digits_that_the_schema_wants_are_written(compiler: Compiler) -> None:
    long = {"type": "string", "pattern": "^[0-9]{30}x$"}
    assert insistent(compiler, JsonSchema(long), "", "8") == f'"{"8" * 30}x"'
    assert insistent(compiler, JsonSchema({"const": "7" * 50}), "", "8") == f'"{"7" * 50}"'


def test_texts_have_any_length(compiler: Compiler) -> None:
    schema = JsonSchema({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})
    assert insistent(compiler, schema, "", "8").endswith("8" * 300)
    assert insistent(compiler, JsonSchema({"type": "string"}), '"a\\"', "x").endswith("x" * 300)
    assert insistent(compiler, Regex("[0-9]+"), "", "8").endswith("8" * 300)


@pytest.mark.parametrize("start", ['{"', '{"a": {"', '{"a": [1, {"b": "{", "', '{"a\\"b": 1, "'])
def test_names_end(compiler: Compiler, start: str) -> None:
    text = insistent(compiler, JsonSchema(), start, "x", limit=_LONGEST_NAME + 30)
    name = text.removeprefix(start)
    assert name.startswith("x" * _LONGEST_NAME + '"')


def test_names_end_not_in_the_middle_of_an_escape(compiler: Compiler) -> None:
    start = '{"' + "x" * (_LONGEST_NAME - 1) + "\\"
    matcher = compiler.matcher(JsonSchema(), [END])
    for token in compiler._tokenizer.encode(start):
        matcher.take(token)
    allowed = allowed_by(matcher, compiler)
    assert allowed[compiler._tokenizer.encode("n")[0]]


@pytest.mark.parametrize(("start", "more"), [("1234567890123456", "7"), ('{"' + "x" * 250, "y")])
def test_guesses_get_the_same_masks(compiler: Compiler, start: str, more: str) -> None:
    constraint = JsonSchema({"type": ["integer", "object"]})
    tokens, guess = compiler._tokenizer.encode(start), compiler._tokenizer.encode(more) * 8
    at_once, one_by_one = (compiler.matcher(constraint, [END]) for _ in range(2))
    for token in tokens:
        at_once.take(token)
        one_by_one.take(token)
    masks = masks_of(at_once, compiler, guess)
    narrow = 0
    for i, token in enumerate(guess):
        row = allowed_by(one_by_one, compiler)
        assert np.array_equal(row, masks[i])
        narrow += not row[token]
        if narrow:
            break
        one_by_one.take(token)
    assert narrow
