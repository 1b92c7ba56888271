"""docs/cli.md names exactly the commands and options that there are."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer.main
from tests.contracts.source import ROOT

from puna.cli import app
from puna.cli.commands import COMMANDS

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {
    heading: text
    for heading, text in zip(
        re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE),
        re.split(r"^## .+$", PAGE, flags=re.MULTILINE)[1:],
        strict=True,
    )
}
GROUP: Any = typer.main.get_command(app)


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}


def named_options(text: str) -> set[str]:
    """Options in the tables of a section: the first cell of a row."""
    return {
        name
        for row in re.findall(r"^\| (.+?) \|", text, flags=re.MULTILINE)
        for name in re.findall(r"--[a-z-]+", row)
    }


def test_every_command_has_a_section() -> None:
    found = {heading.removeprefix("puna ") for heading in SECTIONS if heading.startswith("puna ")}
    assert found == set(GROUP.commands)


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_options_are_told(name: str) -> None:
    text = SECTIONS[f"puna {name}"]
    told = named_options(text)
    if "sampling options" in text:
        told |= named_options(SECTIONS["Sampling options"])
    if "model options" in text:
        told |= named_options(SECTIONS["Model options"])
    assert told == options(GROUP.commands[name])


def test_global_options_are_told() -> None:
    assert named_options(SECTIONS["Everywhere"]) == options(GROUP) | {"--help"}


def test_commands_of_a_conversation_are_told() -> None:
    rows = re.findall(r"^\| `(/[^`]*)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(rows) == sorted(command.usage for command in COMMANDS)
