"""What users of Puna may rely on, as text: names, signatures, settings, commands and their options.

``make snapshots`` writes it to ``public.txt``, and `test_public_names.py` compares.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import puna
from puna.models.config import ModelConfig, RopeScaling

SNAPSHOT = Path(__file__).with_name("public.txt")


def describe() -> str:
    """The whole public surface."""
    return "\n".join([*_names(), *_settings(), *_commands()]) + "\n"


def _names() -> Iterator[str]:
    yield "# puna"
    for name in puna.__all__:
        value = getattr(puna, name)
        if inspect.isfunction(value):
            yield f"puna.{name}{_signature(value)}"
        elif inspect.isclass(value):
            yield f"puna.{name}"
            if dataclasses.is_dataclass(value):
                yield from _fields(value)
            yield from _methods(value)
        else:
            yield f"puna.{name} = {value}".replace("puna.prompt.messages.", "")


def _methods(kind: type) -> Iterator[str]:
    for name in sorted(name for name in dir(kind) if not name.startswith("_")):
        value = inspect.getattr_static(kind, name)
        if isinstance(value, property):
            yield f"    .{name}"
        elif inspect.isfunction(value):
            yield f"    .{name}{_signature(value)}"


def _settings() -> Iterator[str]:
    yield "\n# architecture"
    for kind in (ModelConfig, RopeScaling):
        yield f"{kind.__module__}.{kind.__name__}"
        yield from _fields(kind)


def _fields(kind: Any) -> Iterator[str]:
    for field in dataclasses.fields(kind):
        default = ""
        if field.default is not dataclasses.MISSING:
            default = f" = {field.default!r}"
        elif field.default_factory is not dataclasses.MISSING:
            default = f" = {field.default_factory()!r}"
        yield f"    {field.name}: {field.type}{default}"


def _commands() -> Iterator[str]:
    import typer.main

    from puna.cli import app

    group = typer.main.get_command(app)
    yield "\n# command line"
    yield "puna"
    yield from _parameters(group)
    for name in sorted(group.commands):  # type: ignore[attr-defined]
        yield f"puna {name}"
        yield from _parameters(group.commands[name])  # type: ignore[attr-defined]


def _parameters(command: Any) -> Iterator[str]:
    for parameter in command.params:
        is_option = parameter.opts[0].startswith("-")
        names = "/".join(parameter.opts) if is_option else parameter.name.upper()
        value = getattr(parameter.default, "value", parameter.default)
        default = "" if value in (None, False) else f" = {value}"
        yield f"    {names}{default}"


def _signature(function: Any) -> str:
    # Annotations are text here, which `inspect` puts in quotation marks.
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))


if __name__ == "__main__":
    SNAPSHOT.write_text(describe(), encoding="utf-8")
