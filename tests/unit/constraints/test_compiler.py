"""Constraints against what other libraries say of the same languages, and constraints that mean harm."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import numpy as np
import pydantic
import pytest
import regex
from tests.unit.constraints.bombs import BOMBS, END, HARMLESS, why_not
from tests.unit.constraints.walks import allowed_by, is_allowed, random_answer

from puna.constraints import Choices, Compiler, Constraint, JsonSchema, Lark, Regex
from puna.constraints.grammar import FORMATS, json_rule
from puna.errors import ConstraintError
from puna.tokens import Tokenizer


@pytest.fixture(scope="module")
def compiler(smollm: Tokenizer) -> Compiler:
    return Compiler(smollm, smollm.vocab_size)


PATTERNS = [
    r"[a-z]{3,6}[0-9]+",
    r"(?:yes|no|maybe)(?: [a-z]+)*\.",
    r"[^\"\\]{2,8}",
    r"[A-ZÄÖÜ][a-zäöüß]{0,5}( [0-9]{1,2})?",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_masks_of_a_pattern_are_those_of_partial_matches(
    pattern: str, compiler: Compiler, smollm: Tokenizer
) -> None:
    matcher = compiler.matcher(Regex(pattern), [END])
    draw = np.random.default_rng(5)
    # Some tokens, of whole characters: of halves the other library knows nothing.
    texts = {i: t for i in range(0, smollm.vocab_size, 7) if (t := whole_text(smollm, i)) is not None}
    said = ""
    for _ in range(6):
        allowed = allowed_by(matcher, compiler)
        expected = {i for i, t in texts.items() if regex.fullmatch(pattern, said + t, partial=True)}
        found = set(np.flatnonzero(allowed).tolist()) & set(texts)
        assert found == expected or (len(found) == 1 and found < expected)  # one: the canonical spelling
        assert allowed[END] == bool(regex.fullmatch(pattern, said))
        if not found:
            break
        token = int(draw.choice(sorted(found)))
        matcher.take(token)
        said += texts[token]
    assert len(said) > 2


def whole_text(tokenizer: Tokenizer, token: int) -> str | None:
    data = tokenizer.bytes_or_none(token)
    if not data or tokenizer.is_special(token):
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


class Address(pydantic.BaseModel):
    street: str
    number: int = pydantic.Field(ge=1, le=999)


class Person(pydantic.BaseModel):
    name: str
    home: Address | None
    tags: list[str]


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object"},
    {
        "type": "array",
        "items": {"type": "integer", "minimum": -3, "maximum": 12},
        "minItems": 1,
        "maxItems": 4,
    },
    {"type": "object", "properties": {"a": {"enum": [1, "x", None]}}, "required": ["a"]},
    {"type": "string", "pattern": "^[a-f]{3}$"},
    {"anyOf": [{"type": "number"}, {"type": "boolean"}]},
    Person.model_json_schema(),
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_random_walks_give_what_the_schema_asks_for(
    schema: dict[str, Any], compiler: Compiler, smollm: Tokenizer
) -> None:
    n_whole = 0
    for seed in range(12):
        ids = random_answer(compiler, JsonSchema(schema), END, seed)
        if ids is not None:
            n_whole += 1
            jsonschema.validate(json.loads(smollm.decode(ids)), schema)
    assert n_whole > 3


def test_a_pydantic_class_stands_for_its_schema() -> None:
    assert JsonSchema(Person).values == Person.model_json_schema()
    assert JsonSchema(True).values == {}
    assert JsonSchema().values == {"type": "object"}


def test_choices_are_these_texts_and_no_others(compiler: Compiler, smollm: Tokenizer) -> None:
    texts = ["red", 'a "quoted" \\ one', "ünïcode 😀", "red wine", " line\nend "]
    for text in texts:
        matcher = compiler.matcher(Choices(texts), [END])
        for token in smollm.encode(text, continues=True):
            assert allowed_by(matcher, compiler)[token]
            matcher.take(token)
        assert allowed_by(matcher, compiler)[END]
        assert matcher.is_over == (text != "red")
    matcher = compiler.matcher(Choices(texts), [END])
    with pytest.raises(ConstraintError, match="cannot be followed further"):
        matcher.take(smollm.encode("blue")[0])


def test_a_grammar_may_hold_schemas_and_special_tokens(compiler: Compiler, smollm: Tokenizer) -> None:
    rule = json_rule({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    matcher = compiler.matcher(Lark(f'start: <|im_start|> "call " {rule}'), [END])
    for token in smollm.encode_with_special('<|im_start|>call {"n": 7}'):
        assert allowed_by(matcher, compiler)[token]
        matcher.take(token)
    assert matcher.is_over


def test_text_never_gives_a_special_token(compiler: Compiler, smollm: Tokenizer) -> None:
    for constraint in (Regex(r"(?s:.*)"), JsonSchema({}), Regex(r"<\|im_start\|>")):
        allowed = allowed_by(compiler.matcher(constraint, [END]), compiler)
        assert not any(allowed[token] for token in smollm.special_tokens.values() if token != END)


def test_guesses_get_the_masks_that_single_steps_get(compiler: Compiler, smollm: Tokenizer) -> None:
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
    ids = smollm.encode('{"colour": "dark red"}')
    single, expected = compiler.matcher(JsonSchema(schema), [END]), []
    for token in ids:
        expected.append(allowed_by(single, compiler))
        single.take(token)
    for length in range(1, len(ids)):
        matcher = compiler.matcher(JsonSchema(schema), [END])
        guess = [*ids[:length], END]
        assert matcher.permitted(guess) == ids[:length]
        assert matcher.forced(3) == ids[:3]
        masks = np.zeros((1 + length, compiler.n_words), np.uint32)
        matcher.fill(masks, ids[:length])
        bits = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")[:, : smollm.vocab_size]
        assert np.array_equal(bits[:length].astype(bool), expected[:length])
        for token in ids:  # the guess left no trace
            matcher.take(token)
        assert matcher.is_over


BAD: list[tuple[Constraint, str]] = [
    (JsonSchema({"properties": {"a/b": {"items": {"not": {}}}}}), "at #/properties/a~1b/items: `not`"),
    (JsonSchema({"anyOf": [{"type": "string"}, {"not": {}}]}), r"at #/anyOf/1: `not` cannot be enforced"),
    (JsonSchema({"properties": {"a": {"format": 5}}}), "Expected string for 'format'"),
    (
        JsonSchema({"anyOf": [{"propertyNames": {"type": "string"}}, {"propertyNames": {"not": {}}}]}),
        "at #/anyOf/1: `propertyNames` cannot be enforced",
    ),
    (JsonSchema({"propertyNames": False}), "at #: `propertyNames` cannot be enforced"),
    (JsonSchema({"propertyNames": {"pattern": "a", "maxLength": 2}}), "at #: `propertyNames` cannot be"),
    (JsonSchema({"propertyNames": {"minLength": True}}), "at #: `propertyNames` cannot be enforced"),
    (JsonSchema({"propertyNames": {"enum": "ab"}}), "at #: `propertyNames` cannot be enforced"),
    (JsonSchema({"propertyNames": {"const": "a"}, "patternProperties": {"a": {}}}), "`propertyNames` cannot"),
    (JsonSchema({"allOf": [{"propertyNames": {"pattern": p}} for p in "ab"]}), "are not disjoint"),
    (JsonSchema({"propertyNames": {"pattern": "a"}, "properties": {"b": {}}}), "`propertyNames` cannot be"),
    (JsonSchema({"propertyNames": {"format": "email"}}), "at #: `propertyNames` cannot be enforced"),
    (JsonSchema({"type": "text"}), "at #: Invalid type: text"),
    (JsonSchema({"properties": {"a": {"$ref": "#/$defs/none"}}}), "at #/properties/a: Pointer"),
    (
        JsonSchema({"items": {"$ref": "https://example.org/s.json"}}),
        "at #/items: `.ref` names another document, 'https://example.org/s.json', and none is fetched; put "
        "it under `.defs` and refer to that$",
    ),
    (JsonSchema({"$ref": "#"}), "cannot be used: no answer suits it, since it or a part of it needs itself"),
    (JsonSchema({"items": {"type": "string", "pattern": "(?=a)b"}}), "at #/items: regex parse error"),
    (JsonSchema({"type": "integer", "minimum": 5, "maximum": 3}), "at #: Unsatisfiable schema: minimum"),
    (JsonSchema({"enum": []}), "Unsatisfiable"),
    (JsonSchema({"items": {"enum": ["a", 10**17 + 1]}}), "at #/items: 100000000000000001 has more than 15"),
    (JsonSchema({"const": 0.12345678901234567}), "more than 15 digits"),
    (JsonSchema({"type": "integer", "minimum": 2**53 + 1}), "at #: 9007199254740993 has more than"),
    (JsonSchema({"minimum": -(2**63), "maximum": 2**63 - 1}), "at #: -9223372036854775808 has more than"),
    (
        JsonSchema({"items": {"type": "number", "maximum": 2**63 - 1}}),
        r"at #/items: bounds up to 10\^17 can be enforced, up and down, got 9\.22.*; leave out what is",
    ),
    (JsonSchema({"type": "integer", "minimum": 2**63 - 1}), "at #: bounds up .* got 9223372036854775807;"),
    (JsonSchema({"type": "number", "minimum": -1e20, "maximum": 1e20}), "got -1e20, 1e20; leave out"),
    (JsonSchema({"type": "integer", "multipleOf": 1_000_003}), "schema has too large a `multipleOf`"),
    (JsonSchema({"allOf": [{"multipleOf": 97}, {"multipleOf": 0.89}]}), "all of them together may come to"),
    (Lark('start: %json {"\\u006dultipleOf" : 99991}'), "grammar has too large a `multipleOf`"),
    (Lark('start: %json {"multipleOf": 99991e-2}'), "grammar has too large a `multipleOf`"),
    (JsonSchema(False), "`not` cannot be enforced"),
    (JsonSchema(5), "must be an object, true, or a pydantic model class, got 5"),  # type: ignore[arg-type]
    (JsonSchema({"const": float("nan")}), "must consist of what JSON has"),
    (JsonSchema({"const": {1, 2}}), "must consist of what JSON has"),
    (JsonSchema({"enum": ["x" * 70_000]}), "may have 65536 characters, got 70"),
    (JsonSchema({"const": "\ud800"}), "Unterminated|surrogate|hex escape"),
    (Regex("(a"), "regular expression cannot be used: .*unclosed group"),
    (Regex(r"(a)\1"), "backreferences are not supported"),
    (Regex("a" * 70_000), "may have 65536 characters"),
    (Regex("\ud800"), "half a surrogate pair"),
    (Regex(b"a"), "must be a text, got bytes"),  # type: ignore[arg-type]
    (Lark("start: missing"), 'the grammar cannot be used: .*unknown name: "missing"'),
    (Lark("start: start"), "the grammar cannot be used"),
    (Lark('start: a\na[max_tokens=3]: /.*/\n'), "`max_tokens`, `stop` and such are not supported"),
    (Lark('start: @other'), "unknown grammar"),
    (Lark('{"grammars": [{"json_schema": {}}]}'), "the grammar cannot be used"),
    (Lark(""), "the grammar cannot be used"),
    ("yes", "must be a JsonSchema, Regex, Lark or Choices, got str"),  # type: ignore[list-item]
]  # fmt: skip


@pytest.mark.parametrize(("constraint", "message"), BAD, ids=range(len(BAD)))
def test_a_refusal_says_what_and_where(constraint: Constraint, message: str, compiler: Compiler) -> None:
    with pytest.raises(ConstraintError, match=f"(?s){message}"):
        compiler.prepare(constraint)


# The first schema says no more than the second.
NOTES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *(
        ({"type": "string", "format": name}, {"type": "string"})
        for name in ("password", "binary", "base64", "byte", "emoji", "uri-reference", "regex", "zip")
    ),
    *(
        ({"type": "object", "propertyNames": names}, {"type": "object"})
        for names in (True, {}, {"type": "string"}, {"type": "string", "format": "emoji"})
    ),
    (
        {"items": [{"anyOf": [{"format": "zip"}]}], "$defs": {"format": {"format": "zip"}}},
        {"items": [{"anyOf": [{}]}], "$defs": {"format": {}}},
    ),
]


@pytest.mark.parametrize(("schema", "same"), NOTES, ids=range(len(NOTES)))
def test_what_asks_for_nothing_is_left_out(
    schema: dict[str, Any], same: dict[str, Any], compiler: Compiler
) -> None:
    compiler.prepare(JsonSchema(schema))
    assert json_rule(schema) == json_rule(same)


FLAG: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "boolean"}}
NAMED: list[dict[str, Any]] = [
    {**FLAG, "propertyNames": {"enum": ["a", "ab", 7]}},
    {**FLAG, "propertyNames": {"type": "string", "title": "Name", "const": "a"}},
    {**FLAG, "propertyNames": {"pattern": "^a"}},
    {**FLAG, "propertyNames": {"pattern": "b"}, "required": ["ab"]},
    {**FLAG, "propertyNames": {"minLength": 2}},
    {**FLAG, "propertyNames": {"minLength": 1, "maxLength": 2}, "properties": {}},
    {**FLAG, "propertyNames": {"enum": ["a", "b"]}, "properties": {"a": {"const": 1}, "c": {}}},
    {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "properties": {"c": {}}},
    {"type": "object", "propertyNames": {"pattern": "^a"}, "additionalProperties": False},
    {**FLAG, "allOf": [{"propertyNames": {"maxLength": 1}}, {"propertyNames": {"enum": ["a", "ab"]}}]},
    {"propertyNames": {"maxLength": 1}},
]
OBJECTS: list[Any] = [
    *({name: True} for name in ("", "a", "b", "ab", "é", "é\n", "é\n.", "abc")),
    {},
    {"a": 1},
    {"ab": 1},
    {"c": True},
    {"a": True, "ab": False},
    {"a": 1, "b": True},
    [1],
]


@pytest.mark.parametrize("schema", NAMED, ids=json.dumps)
def test_names_of_properties_are_as_another_library_says(
    schema: dict[str, Any], compiler: Compiler, smollm: Tokenizer
) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    expected = [value for value in OBJECTS if validator.is_valid(value)]
    texts = [(value, json.dumps(value, ensure_ascii=False)) for value in OBJECTS]
    assert [v for v, text in texts if is_allowed(compiler, JsonSchema(schema), text, END)] == expected
    for seed in range(8):
        ids = random_answer(compiler, JsonSchema(schema), END, seed)
        assert ids is None or validator.is_valid(json.loads(smollm.decode(ids)))


class Counts(pydantic.BaseModel):
    by_sound: dict[Literal["hum", "spit"], int]
    by_name: dict[Annotated[str, pydantic.StringConstraints(min_length=2, max_length=9)], bool]


def test_dictionaries_of_pydantic_have_the_keys_that_they_may(compiler: Compiler) -> None:
    constraint = JsonSchema(Counts)
    good = '{"by_sound": {"hum": 3}, "by_name": {"Cusco": true}}'
    assert is_allowed(compiler, constraint, good, END)
    assert not is_allowed(compiler, constraint, good.replace("hum", "moo"), END)
    assert not is_allowed(compiler, constraint, good.replace("Cusco", "C"), END)


def test_values_and_names_that_look_like_such_keywords_stay(compiler: Compiler, smollm: Tokenizer) -> None:
    value = {"format": "zip", "propertyNames": True}
    schema = {
        "type": "object",
        "properties": {"format": {"const": value}, "propertyNames": {"type": "string"}},
        "required": ["format", "propertyNames"],
        "additionalProperties": False,
    }
    text = json.dumps({"format": value, "propertyNames": "x"})
    assert is_allowed(compiler, JsonSchema(schema), text, END)


def test_formats_that_are_known_are_enforced(compiler: Compiler) -> None:
    assert len(FORMATS) == 10
    for name in FORMATS:
        assert not is_allowed(compiler, JsonSchema({"type": "string", "format": name}), '"?"', END), name


def test_factors_as_people_use_them_are_enforced(compiler: Compiler, smollm: Tokenizer) -> None:
    for factor in (2, 7, 60, 1000, 1024, 86_400, 0.01, 0.25, 1e-8):
        ids = random_answer(compiler, JsonSchema({"type": "number", "multipleOf": factor}), END, 1, limit=30)
        if ids is not None:
            value = json.loads(smollm.decode(ids), parse_float=Decimal, parse_int=Decimal)
            assert value % Decimal(str(factor)) == 0


@pytest.mark.parametrize("texts", [[], "red", ["red", 5]])
def test_choices_must_be_texts(texts: Any) -> None:
    with pytest.raises(ConstraintError, match="list of at least 1 text"):
        Choices(texts)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_or_goes_out(name: str, compiler: Compiler) -> None:
    reason = why_not(compiler, BOMBS[name])
    assert (reason is None) == (name in HARMLESS)
    assert len(reason or "") < 500


def test_bombs_take_bounded_work_and_memory(default_gguf: Path) -> None:
    """All of them in a process that the system ends after so much work, however long that takes."""
    command = [sys.executable, "-m", "tests.unit.constraints.bombs", str(default_gguf)]
    run = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(run.stdout)["MiB"] < 300


def test_a_constraint_that_ran_into_a_limit_is_let_go(compiler: Compiler) -> None:
    constraint = Regex(r"(\w{1,200}\s\p{L}{1,300}){1,200}")
    matcher, draw = compiler.matcher(constraint, [END]), np.random.default_rng(0)
    key = compiler._compiled(constraint, "")[0]
    masks = np.zeros((1, compiler.n_words), np.uint32)
    for _ in itertools.repeat(None, 1_000):
        matcher.fill(masks, [])
        if matcher.error is not None:
            break
        bits = np.flatnonzero(np.unpackbits(masks.view(np.uint8), bitorder="little"))
        matcher.take(int(draw.choice(bits[(bits != END) & (bits < compiler._vocab_size)])))
    assert "make it simpler" in str(matcher.error)
    assert compiler._kept.find(key) is None
    compiler.prepare(constraint)


def test_tokens_without_a_text_are_never_allowed(smollm: Tokenizer) -> None:
    compiler = Compiler(smollm, smollm.vocab_size + 77)
    allowed = allowed_by(compiler.matcher(Regex("(?s:.*)"), [END, smollm.vocab_size + 500]), compiler)
    assert allowed[: smollm.vocab_size].sum() > 40_000
    assert not allowed[smollm.vocab_size :].any()
