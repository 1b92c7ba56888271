"""Chat templates in Jinja, with what Hugging Face templates may use, in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.utils import Namespace

from puna.prompt.jinja_limits import LimitedEnvironment, refuel

__all__ = ["compile_template", "render"]


class _Generation(Extension):
    """Accepts ``{% generation %}``, with which templates mark what the assistant says for training."""

    tags = {"generation"}  # noqa: RUF012  the base class declares it so

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Jinja's namespace without names that Python gives a meaning to."""

    def __init__(self, *args: Any, **values: Any) -> None:
        for name in dict(*args, **values):
            _check_name(name)
        super().__init__(*args, **values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}: names must not start with `_`")


def _raise_exception(message: object) -> NoReturn:
    raise TemplateError(str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes <, > and & for HTML, which no model was trained on.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _dict(*args: Any, **values: Any) -> dict[Any, Any]:
    return dict(*args, **values)


def compile_template(source: str) -> Template:
    """Compile a chat template for the sandbox; raises jinja2's errors."""
    environment = LimitedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.add_filter("tojson", _tojson)
    environment.globals.update(
        dict=_dict, namespace=_Namespace, raise_exception=_raise_exception, strftime_now=_strftime_now
    )
    return environment.from_string(source)


def render(template: Template, variables: Mapping[str, Any], max_characters: int) -> str:
    """Run a compiled template; raises jinja2's errors and whatever its expressions raise.

    Args:
        template: made by `compile_template`.
        variables: what the template sees.
        max_characters: how long the result may be.

    Returns:
        The text.

    Raises:
        TemplateError: the result is longer than that, or it takes too long to make; rendering stops there.
    """
    refuel()
    parts = []
    length = 0
    for part in template.generate(**variables):
        length += len(part)
        if length > max_characters:
            raise TemplateError(f"it printed more than {max_characters} characters")
        parts.append(part)
    return "".join(parts)
