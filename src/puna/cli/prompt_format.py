"""``puna prompt-format``: what a model reads, with its special tokens made visible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from puna.cli import options
from puna.cli.output import print_json
from puna.cli.raw import print_segments
from puna.errors import ConfigError, PromptFormatError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from puna.prompt.examples import Example

__all__ = ["prompt_format"]


def prompt_format(
    name: Annotated[str, typer.Argument(help="Name or path of a model, or of a chat format (llama3.2).")],
    example: Annotated[
        str | None,
        typer.Option("--example", metavar="TOPIC", help="Only this example; without it, all of them."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show examples of a model's chat format.

    Special tokens stand out on a terminal. Nothing is fetched.
    """
    from puna.prompt.visible import visible_pieces

    format_name, shown = _examples(name)
    if example is not None:
        topics = [found.topic for found in shown]
        if example not in topics:
            raise ConfigError(f"{format_name} has no example {example!r}; {nearest(example, topics)}")
        shown = [found for found in shown if found.topic == example]
    if as_json:
        documents = [
            {"topic": e.topic, "about": e.about, "segments": visible_pieces(e.pieces)} for e in shown
        ]
        print_json({"format": format_name, "examples": documents})
        return
    for i, found in enumerate(shown):
        typer.echo(f"{chr(10) if i else ''}# {format_name}, {found.topic}: {found.about}\n")
        print_segments(visible_pieces(found.pieces))
        typer.echo()


def _examples(name: str) -> tuple[str, list[Example]]:
    """The format's name, and its examples."""
    from puna.cli.description import find_local
    from puna.prompt.examples import examples
    from puna.prompt.family import FAMILIES

    if name in ("llama2", *FAMILIES):
        return name, examples(name)
    row, path = find_local(name)
    format_name = row.prompt_format if row is not None else "template"
    if row is not None and format_name.startswith("llama-guard"):
        # The guard models differ in what they look for.
        format_name = row.name
    if format_name == "template" and path is not None:
        return _own_examples(path)
    reasons = {
        "base": "is a base model, which reads text as it is",
        "none": "is a classifier, which reads text as it is",
        "template": f"has a chat template of its own, which comes with it; `puna pull {name}` fetches it",
    }
    if format_name in reasons:
        raise PromptFormatError(f"{name} {reasons[format_name]}; there are no examples of it")
    return format_name, examples(format_name)


def _own_examples(path: Path) -> tuple[str, list[Example]]:
    """Examples of a model that is here, by what its vocabulary has."""
    from puna.models.open import open_checkpoint
    from puna.prompt import chat_format
    from puna.prompt.examples import encoded_example, examples
    from puna.tokens import Tokenizer

    vocabulary = open_checkpoint(path).vocabulary()
    tokenizer = Tokenizer(vocabulary)
    form = chat_format(vocabulary, tokenizer)
    if form.name in ("base", "template"):
        return form.name, [encoded_example(form, tokenizer)]
    return form.name, examples(form.name)
