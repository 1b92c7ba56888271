"""What an answer must be, as clients say it: in the three forms of OpenAI, and in three of our own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from puna.constraints.forms import Choices, Constraint, JsonSchema, Lark, Regex
from puna.errors import ConstraintError
from puna.server.schemas.base import Body

__all__ = [
    "ChoicesFormat",
    "GrammarFormat",
    "JsonObjectFormat",
    "JsonSchemaFormat",
    "NamedSchema",
    "NamedSchemaFormat",
    "RegexFormat",
    "ResponseFormat",
    "TextForm",
    "TextFormat",
    "as_response_format",
    "constraint_of",
]

_MAX_CHOICES = 1024
_MAX_CHARACTERS = 65_536

Grammar = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_CHARACTERS)]


class TextFormat(Body):
    """Plain text, which is the default."""

    type: Literal["text"]


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(Body):
    """A JSON schema under a name."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema", description="Default: any object.")
    strict: bool | None = Field(None, description="Taken and without effect: every schema is enforced.")


class NamedSchemaFormat(NamedSchema):
    """JSON as a schema says, in the words of the Responses API."""

    type: Literal["json_schema"]


class JsonSchemaFormat(Body):
    """JSON as a schema says."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class RegexFormat(Body):
    """A text that a regular expression matches as a whole."""

    type: Literal["regex"]
    regex: Grammar = Field(description="In the syntax of Rust's regex: no look-around, no back-references.")


class GrammarFormat(Body):
    """A text of a context-free language."""

    type: Literal["grammar"]
    grammar: Grammar = Field(description="In the Lark dialect of llguidance.")


class ChoicesFormat(Body):
    """One of some texts."""

    type: Literal["choices"]
    choices: list[str] = Field(min_length=1, max_length=_MAX_CHOICES, fail_fast=True)


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat | GrammarFormat | ChoicesFormat,
    Field(discriminator="type"),
]

TextForm = Annotated[
    TextFormat | JsonObjectFormat | NamedSchemaFormat | RegexFormat | GrammarFormat | ChoicesFormat,
    Field(discriminator="type"),
]
"""The same in the words of the Responses API."""


def as_response_format(form: TextForm | None) -> ResponseFormat | None:
    """What the Responses API says, in the words of chat completions."""
    if isinstance(form, NamedSchemaFormat):
        named = NamedSchema(**form.model_dump(by_alias=True, exclude={"type"}))
        return JsonSchemaFormat(type="json_schema", json_schema=named)
    return form


def constraint_of(response_format: ResponseFormat | None) -> Constraint | None:
    """What the engine is told; None where the answer may be any text.

    Raises:
        ConstraintError: it is nothing that an answer can be held to.
    """
    match response_format:
        case JsonObjectFormat():
            return JsonSchema()
        case JsonSchemaFormat(json_schema=named):
            return JsonSchema() if named.json_schema is None else JsonSchema(named.json_schema)
        case RegexFormat(regex=pattern):
            return Regex(pattern)
        case GrammarFormat(grammar=grammar):
            return Lark(grammar)
        case ChoicesFormat(choices=texts):
            return Choices(texts)
        case None | TextFormat():
            return None
    raise ConstraintError(f"no response format is a {type(response_format).__name__}")
