"""What a schema says of the names of properties, in keywords that the library knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["with_known_names"]

_NOTES = {"title", "description"}


def with_known_names(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema without `propertyNames`, where that lists names or has a pattern or lengths for them.

    Any other is left as it is, and so is one beside patterns or, but for a list, beside properties: those
    would have to hold at once.
    """
    names = schema.get("propertyNames")
    if not isinstance(names, Mapping) or "patternProperties" in schema:
        return schema
    said = {k: value for k, value in names.items() if k not in _NOTES and (k, value) != ("type", "string")}
    if set(said) == {"const"}:
        said = {"enum": [said["const"]]}
    given, other = schema.get("properties", {}), schema.get("additionalProperties", True)
    known: dict[str, Any]
    if set(said) == {"enum"} and isinstance(said["enum"], list | tuple) and isinstance(given, Mapping):
        texts = [name for name in said["enum"] if isinstance(name, str)]
        known = {"properties": {name: given.get(name, other) for name in texts}}
    elif not given and (pattern := _pattern(said)) is not None:
        known = {"patternProperties": {pattern: other}}
    else:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("propertyNames", "properties")}
    return {**rest, **known, "additionalProperties": False}


def _pattern(said: Mapping[str, Any]) -> str | None:
    """What names match, None where that is not one pattern."""
    if set(said) == {"pattern"} and isinstance(said["pattern"], str):
        return said["pattern"]
    if (
        said
        and set(said) <= {"minLength", "maxLength"}
        and all(type(n) is int and n >= 0 for n in said.values())
    ):
        return f"^(?s:.{{{said.get('minLength', 0)},{said.get('maxLength', '')}}})$"
    return None
