"""The forms in which a caller says what an answer may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from puna.errors import ConstraintError

__all__ = ["Choices", "Constraint", "HasJsonSchema", "JsonSchema", "Lark", "Regex"]


class HasJsonSchema(Protocol):
    """A class that can tell its own schema, as those of pydantic can."""

    def model_json_schema(self) -> dict[str, Any]:
        """The schema."""
        ...


def _any_object() -> dict[str, Any]:
    return {"type": "object"}


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is JSON as a schema says, on one line with the spaces of `json.dumps`.

    Attributes:
        schema: a JSON schema (draft 2020-12, or the one that its ``$schema`` names), or a pydantic model
            class; default: any object. Properties come in the order in which the schema has them.
    """

    schema: Mapping[str, Any] | bool | HasJsonSchema = field(default_factory=_any_object)

    @property
    def values(self) -> dict[str, Any]:
        """The schema as JSON values.

        Raises:
            ConstraintError: it is no schema.
        """
        schema = self.schema
        if isinstance(schema, Mapping):
            return dict(schema)
        if isinstance(schema, bool):
            return {} if schema else {"not": {}}
        if hasattr(schema, "model_json_schema"):
            return schema.model_json_schema()
        raise ConstraintError(
            f"a JSON schema must be an object, true, or a pydantic model class, got {schema!r:.80}"
        )


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches a regular expression.

    Attributes:
        pattern: in the syntax of Rust's ``regex``: no look-around and no references to groups.
    """

    pattern: str


@dataclass(frozen=True, slots=True)
class Lark:
    """The answer is in the language of a context-free grammar.

    Attributes:
        grammar: in the Lark dialect of llguidance: its rule ``start`` is the answer, ``%json {...}`` in it
            stands for JSON of that schema, and ``<name>`` for a special token.
    """

    grammar: str


@dataclass(frozen=True, slots=True)
class Choices:
    """The answer is one of some texts.

    Attributes:
        texts: at least one.
    """

    texts: Sequence[str]

    def __post_init__(self) -> None:
        is_texts = isinstance(self.texts, Sequence) and not isinstance(self.texts, str)
        if not is_texts or not self.texts or not all(isinstance(text, str) for text in self.texts):
            raise ConstraintError(f"choices must be a list of at least 1 text, got {self.texts!r:.80}")


Constraint = JsonSchema | Regex | Lark | Choices
"""What an answer may be."""
