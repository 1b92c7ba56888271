"""JSON schemas from strangers, applied in bounded time.

Python's regular expressions can take for ever on a short text, and a schema whose parts refer to one another
doubles the work with every line. So patterns go to an engine that is linear in the text, and the keywords
that are looked at are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import Any

from jsonschema import (
    Draft4Validator,
    Draft6Validator,
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
    ValidationError,
    validators,
)
from jsonschema.protocols import Validator
from pydantic_core import SchemaError, SchemaValidator, core_schema
from pydantic_core import ValidationError as NoMatch
from referencing import Registry

from puna.errors import PromptFormatError

__all__ = ["bounded_validator", "check_patterns", "draft_of", "first_error"]

_MAX_KEYWORDS = 20_000  # looked at for one call; large tools look at some hundred
_MAX_PATTERNS = 32
_MAX_PATTERN_CHARACTERS = 1_000

_left: ContextVar[int] = ContextVar("_left")
_Keyword = Callable[[Validator, Any, Any, Mapping[str, Any]], Iterator[ValidationError] | None]


def first_error(validator: Validator, instance: Any) -> ValidationError | None:
    """What is wrong with a value, None where it suits the schema.

    Raises:
        PromptFormatError: to tell takes too long.
    """
    token = _left.set(_MAX_KEYWORDS)
    try:
        return next(iter(validator.iter_errors(instance)), None)
    finally:
        _left.reset(token)


def check_patterns(schema: Any) -> None:
    """Insist that every regular expression of a schema can be applied in bounded time.

    Args:
        schema: JSON values.

    Raises:
        PromptFormatError: one is damaged, too large or looks around itself, or there are too many.
    """
    patterns = list(_patterns(schema))
    if len(patterns) > _MAX_PATTERNS:
        raise PromptFormatError(f"a schema may have {_MAX_PATTERNS} patterns, got {len(patterns)}")
    for pattern in patterns:
        _compiled(pattern)


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        named = schema.get("patternProperties")
        if isinstance(named, Mapping):
            if "unevaluatedProperties" in schema:
                raise PromptFormatError("`patternProperties` beside `unevaluatedProperties` is not supported")
            yield from named
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
    if isinstance(schema, Mapping | list):
        for item in schema.values() if isinstance(schema, Mapping) else schema:
            yield from _patterns(item)


@lru_cache(maxsize=_MAX_PATTERNS)
def _compiled(pattern: str) -> SchemaValidator:
    if len(pattern) > _MAX_PATTERN_CHARACTERS:
        raise PromptFormatError(
            f"a pattern may have {_MAX_PATTERN_CHARACTERS} characters, got {len(pattern)}"
        )
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError as error:
        reason = str(error).rpartition("error:")[2].strip()
        raise PromptFormatError(f"the pattern {pattern!r:.200} cannot be used: {reason:.200}") from error


def _matches(pattern: str, text: str) -> bool:
    try:
        _compiled(pattern).validate_python(text)
    except NoMatch:
        return False
    return True


def _pattern(
    validator: Validator, pattern: str, instance: Any, _: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError(f"{instance!r:.200} does not match {pattern!r}")


def _pattern_properties(
    validator: Validator, patterns: Mapping[str, Any], instance: Any, _: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if isinstance(instance, Mapping):
        for pattern, schema in patterns.items():
            for name, value in instance.items():
                if _matches(pattern, name):
                    yield from validator.descend(value, schema, path=name, schema_path=pattern)  # type: ignore[attr-defined]


def _additional_properties(
    validator: Validator, value: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    patterns = schema.get("patternProperties")
    if patterns and isinstance(instance, Mapping):
        instance = {k: v for k, v in instance.items() if not any(_matches(p, k) for p in patterns)}
        schema = {k: v for k, v in schema.items() if k != "patternProperties"}
    yield from Draft202012Validator.VALIDATORS["additionalProperties"](validator, value, instance, schema)


def _counted(keyword: _Keyword) -> _Keyword:
    def check(
        validator: Validator, value: Any, instance: Any, schema: Mapping[str, Any]
    ) -> Iterator[ValidationError]:
        left = _left.get() - 1
        _left.set(left)
        if left < 0:
            raise PromptFormatError("its parts refer to one another too often")
        yield from keyword(validator, value, instance, schema) or ()

    return check


_KEYWORDS = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
_OLDER: dict[str, type[Validator]] = {
    draft.META_SCHEMA["$schema"].rstrip("#"): draft
    for draft in (Draft4Validator, Draft6Validator, Draft7Validator, Draft201909Validator)
}


def draft_of(schema: Mapping[str, Any]) -> type[Validator]:
    """The older draft that a schema names in ``$schema``, else 2020-12."""
    named = schema.get("$schema")
    return _OLDER.get(named.rstrip("#") if isinstance(named, str) else "", Draft202012Validator)


@cache
def _bounded(draft: type[Validator]) -> type[Validator]:
    keywords = {**draft.VALIDATORS, **_KEYWORDS}
    bounded: type[Validator] = validators.extend(  # type: ignore[no-untyped-call]
        draft, {name: _counted(keyword) for name, keyword in keywords.items()}
    )
    bounded.evolve = _evolve  # type: ignore[assignment, method-assign]
    return bounded


def _evolve(validator: Any, **changes: Any) -> Validator:
    """The same for a part of the schema, whose own ``$schema`` would lead to a validator without bounds."""
    part = changes.get("schema", validator.schema)
    if isinstance(part, Mapping) and "$schema" in part:
        changes["schema"] = {key: value for key, value in part.items() if key != "$schema"}
    return Draft202012Validator.evolve(validator, **changes)


def bounded_validator(schema: Mapping[str, Any]) -> Validator:
    """JSON Schema within the bounds of this module, for `first_error`.

    Args:
        schema: one that passed `check_patterns`; a reference out of it is an error, and nothing is fetched.
    """
    return _bounded(draft_of(schema))(schema, registry=Registry())
