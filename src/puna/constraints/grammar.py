"""What a constraint comes to in llguidance's language, and its complaints in words for a caller."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from puna.constraints.forms import Choices, Constraint, JsonSchema, Lark, Regex
from puna.constraints.property_names import with_known_names
from puna.errors import ConstraintError

__all__ = ["grammar_of", "json_rule", "one_line", "refusal", "why_nothing_suits"]

MAX_CHARACTERS = 65_536
"""Of a schema, pattern, grammar or list of choices: more would take seconds to compile."""

# The library takes a state for each remainder of a division, which its own limits do not count.
_MAX_REMAINDERS = 1_000
_MAX_DIGITS = 40
_EXACT_DIGITS = 15  # the library reads numbers as doubles, and rounds what is behind
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LONGEST_INTEGER = 2**63 - 1  # as a bound it is what it says
_FACTOR = re.compile(r'"multipleOf"\s*:\s*([0-9.eE+-]+)')
_ESCAPED = re.compile(r"\\u00([0-7][0-9a-fA-F])")

FORMATS = {"date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
"""Those that the library knows; any other is a note by the standard, and not looked at."""

_ANY_NAME: tuple[Any, ...] = (True, {}, {"type": "string"})  # what `propertyNames` says where it says nothing
_VALUES = {"const", "enum", "default", "examples"}  # keywords with JSON that is no schema
_BY_NAME = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_LEVELS = 2  # of properties, in which what is not understood is looked for: a call's and its arguments

_NOTHING_SUITS = "Unsatisfiable schema: "
_NO_RANGE = r"Failed to generate regex for (?:integer|float) range"  # the library has 64 bits for a bound

# One spelling of each value, so that most of what is not content is certain and costs no choice of the model.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_MAX_REASON = 300


def grammar_of(constraint: Constraint) -> str:
    """A constraint as the list of grammars that llguidance reads.

    Raises:
        ConstraintError: it is too large, or not made of what JSON has.
    """
    if isinstance(constraint, JsonSchema):
        return f'{{"grammars":[{{"json_schema":{_schema_text(constraint.values)}}}]}}'
    if isinstance(constraint, Lark):
        return _lark(_checked("grammar", constraint.grammar))
    if isinstance(constraint, Regex):
        from llguidance import LLMatcher

        return LLMatcher.grammar_from_regex(_checked("regular expression", constraint.pattern))
    if isinstance(constraint, Choices):
        return _lark(_checked("list of choices", "start: " + " | ".join(map(json.dumps, constraint.texts))))
    raise ConstraintError(
        f"a constraint must be a JsonSchema, Regex, Lark or Choices, got {type(constraint).__name__}"
    )


def json_rule(schema: Mapping[str, Any], *, is_exact: bool = True) -> str:
    """JSON of a schema as a part of a rule of `Lark`.

    Args:
        schema: JSON values.
        is_exact: refuse what cannot be enforced, or leave it out; where a part is not even understood, all of
            that property's schema but its type.

    Raises:
        ConstraintError: it is exact, and too large or not made of what JSON has.
    """
    return f"%json {_schema_text(schema if is_exact else _understood(schema, _LEVELS), is_exact=is_exact)}"


def why_nothing_suits(schema: Mapping[str, Any]) -> str:
    """The reason why there is no JSON of a schema; empty where there is, or where that cannot be told."""
    reason = one_line(_problem(schema))
    return reason.removeprefix(_NOTHING_SUITS) if reason.startswith(_NOTHING_SUITS) else ""


def _understood(schema: Any, levels: int) -> Any:
    """A schema without the parts that the library does not take, as deep in properties as `levels`."""
    if not isinstance(schema, Mapping):
        return schema if isinstance(schema, bool) else {}
    if not _problem(schema):
        return schema
    properties = schema.get("properties")
    if levels and isinstance(properties, Mapping):
        parts = {name: _understood(part, levels - 1) for name, part in properties.items()}
        if not _problem({**schema, "properties": parts}):
            return {**schema, "properties": parts}
    kind = {"type": schema["type"]} if "type" in schema else {}
    return {} if _problem(kind) else kind


def _problem(schema: Mapping[str, Any]) -> str:
    """Why the library does not take a schema, even where it may leave parts out; empty where it does."""
    try:
        return _complaint(_schema_text(schema, is_exact=False))
    except ConstraintError as error:
        return str(error)


@lru_cache(maxsize=256)
def _complaint(schema: str) -> str:
    from llguidance import LLMatcher

    return LLMatcher.validate_grammar(f'{{"grammars":[{{"json_schema":{schema}}}]}}')


def _lark(grammar: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": grammar}]})


def _schema_text(schema: Mapping[str, Any], *, is_exact: bool = True) -> str:
    options = {**_SPACING, "lenient": not is_exact}
    try:
        text = json.dumps({**_plain(schema), "x-guidance": options}, allow_nan=False)
        rounded = _rounded_numbers(schema) if is_exact else []
    except RecursionError as error:
        raise ConstraintError("the schema is nested too deeply") from error
    except (TypeError, ValueError) as error:
        raise ConstraintError(f"the schema must consist of what JSON has: {error}") from error
    if rounded:
        pointer, number = rounded[0]
        raise ConstraintError(
            f"the schema cannot be used at {pointer}: {number} has more than {_EXACT_DIGITS} digits, and the "
            "rest cannot be enforced; leave it out and check the answer, or make it a string"
        )
    return _checked("schema", text)


def _plain(schema: Any) -> Any:
    """A schema in keywords that the library knows, as far as there are such.

    What asks for nothing is left out: formats that are notes, and that names of properties be texts, which
    they are anyway.
    """
    if isinstance(schema, list | tuple):
        return [_plain(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    plain = {}
    for key, value in schema.items():
        if key in _VALUES:
            plain[key] = value
        elif key in _BY_NAME and isinstance(value, Mapping):
            plain[key] = {name: _plain(part) for name, part in value.items()}
        elif key == "format" and isinstance(value, str) and value not in FORMATS:
            continue
        elif key != "propertyNames" or _plain(value) not in _ANY_NAME:
            plain[key] = _plain(value)
    return with_known_names(plain)


def _checked(what: str, text: str) -> str:
    if not isinstance(text, str):
        raise ConstraintError(f"a {what} must be a text, got {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise ConstraintError(f"a {what} may have {MAX_CHARACTERS} characters, got {len(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConstraintError(f"the {what} has half a surrogate pair: {error}") from error
    _check_factors(what, text)
    return text


def _rounded_numbers(schema: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Where there are numbers that would lose digits, so that a wrong answer were allowed, and which."""
    found = []
    for pointer, part in _parts(schema, "#"):
        choices = part.get("enum")
        values = [part.get("const"), *(choices if isinstance(choices, list | tuple) else ())]
        values += [part[key] for key in _BOUNDS if key in part and part[key] != _LONGEST_INTEGER]
        found += [(pointer, value) for value in values if _is_number(value) and not _is_exact(value)]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_exact(number: float) -> bool:
    if isinstance(number, int) and abs(number) <= 2**53:
        return True
    digits = Decimal(str(number)).as_tuple().digits
    return len("".join(map(str, digits)).strip("0")) <= _EXACT_DIGITS


def _check_factors(what: str, text: str) -> None:
    """Bound what divisions cost, in grammars too; those of all parts may have to hold at once."""
    plain = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    remainders = math.lcm(*map(_remainders, _FACTOR.findall(plain)))
    if remainders > _MAX_REMAINDERS:
        raise ConstraintError(
            f"the {what} has too large a `multipleOf`: without factors of 2 and 5, all of them together may "
            f"come to {_MAX_REMAINDERS}; leave it out and check the answer"
        )


def _remainders(factor: str) -> int:
    """A factor without its powers of 2 and 5, which the last digits decide."""
    try:
        digits = Decimal(factor).as_tuple().digits
    except ArithmeticError:  # no number: the library says so
        return 1
    if len(digits) > _MAX_DIGITS:
        return _MAX_REMAINDERS + 1
    rest = int("".join(map(str, digits)))
    for prime in (2, 5):
        while rest and rest % prime == 0:
            rest //= prime
    return max(rest, 1)


def refusal(constraint: Constraint, complaint: str) -> ConstraintError:
    """What a caller is told of a constraint that cannot be compiled.

    Args:
        constraint: what was asked for.
        complaint: llguidance's own words.
    """
    reason = _in_plain_words(one_line(complaint))[:_MAX_REASON]
    if not isinstance(constraint, JsonSchema):
        kind = {Regex: "regular expression", Lark: "grammar", Choices: "list of choices"}[type(constraint)]
        return ConstraintError(f"the {kind} cannot be used: {reason}")
    place = _place(_plain(constraint.values), complaint)
    unknown = re.match(r"Unimplemented keys: (\[.*\])", reason)
    if unknown is not None:
        keys = ", ".join(f"`{key}`" for key in json.loads(unknown[1]))
        reason = f"{keys} cannot be enforced while an answer is written; leave it out and check the answer"
    if re.match(_NO_RANGE, reason):
        bounds = ", ".join(re.findall(r"m(?:in|ax)=Some\(([^)]*)\)", reason))
        reason = (
            f"bounds up to 10^17 can be enforced, up and down, got {bounds}; leave out what is beyond and "
            "check the answer"
        )
    return ConstraintError(f"the schema cannot be used{place and f' at {place}'}: {reason}")


def _in_plain_words(reason: str) -> str:
    if reason == "NoExtensionBias":  # no token may come first
        return (
            "no answer suits it, since it or a part of it needs itself without end; give it another way out"
        )
    return re.sub(
        r"Resource '([^']*)' is not present in a registry and .* does not fetch resources",
        r"`$ref` names another document, '\1', and none is fetched; put it under `$defs` and refer to that",
        reason,
    )


def one_line(complaint: str) -> str:
    """Llguidance's words without their line ends and the mark of what was left out."""
    return " ".join(complaint.replace("<non-verbose/>", "").split())


def _place(schema: Any, reason: str) -> str:
    """Where in a schema the complaint is about, as a JSON pointer; empty where that is not known."""
    for pattern, is_meant in _PLACES:
        found = re.match(pattern, reason, re.DOTALL)
        if found is not None:
            for pointer, part in _parts(schema, "#"):
                if is_meant(part, found):
                    return pointer
    return ""


def _parts(value: Any, pointer: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        yield pointer, value
        for key, item in value.items():
            step = str(key).replace("~", "~0").replace("/", "~1")
            yield from _parts(item, f"{pointer}/{step}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _parts(item, f"{pointer}/{i}")


_Test = Callable[[Mapping[str, Any], re.Match[str]], bool]
_PLACES: tuple[tuple[str, _Test], ...] = (
    (r"Unimplemented keys: (\[.*\])", lambda part, found: any(k in part for k in json.loads(found[1]))),
    (r"Invalid type: (.*)", lambda part, found: part.get("type") == found[1]),
    (r"oneOf constraints", lambda part, _: "oneOf" in part),
    (
        r"(?:Pointer|Resource) '([^']*)'",
        lambda part, found: isinstance(part.get("$ref"), str) and part["$ref"].endswith(found[1]),
    ),
    (
        r"regex parse error:\n    ([^\n]*)\n",
        lambda part, found: part.get("pattern") == found[1],
    ),
    (
        r"Unsatisfiable schema: minimum",
        lambda part, _: any(key.lower().endswith("minimum") for key in part),
    ),
    (_NO_RANGE, lambda part, _: any(_is_number(part.get(key)) and abs(part[key]) > 1e17 for key in _BOUNDS)),
)
