"""``puna export``: a model as another program's files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from puna.cli import options
from puna.cli.output import say, size_text
from puna.cli.progress import FetchProgress, PackProgress

__all__ = ["export"]


def export(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="Name or path of a model.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file or folder to make; it must not exist yet.")
    ],
    target: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="NAME",
            help="Whose files: gguf, huggingface, compressed-tensors, meta, peft, executorch.",
            show_default=False,
        ),
    ],
    format: options.Format = "auto",
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            metavar="N",
            help="For executorch: positions of the cache in the program; default: 2048.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a model for another program.

    Weights go over as they are where the other format has the type, and what is rounded is said. Made from a
    Llama, the name of what is made must begin with "Llama", as the licence asks.
    """
    from puna.evaluate.speed import checkpoint_bytes
    from puna.export.targets import write
    from puna.models.licences import check_derived_name
    from puna.models.local import known_row
    from puna.models.open import open_checkpoint
    from puna.models.store import path_of

    row = None if os.path.exists(os.path.expanduser(source)) else known_row(source)
    if row is not None:
        check_derived_name(out.absolute().name, row.licence)
    with FetchProgress() as fetching, PackProgress("writing") as packing:
        path = path_of(source, fetching)
        notes = write(open_checkpoint(path), out, target, format, packing, context=context)
    say(f"{path}: {size_text(checkpoint_bytes(path))}")
    say(f"{out}: {size_text(checkpoint_bytes(out))} as {target}")
    for note in notes:
        say(f"note: {note}")
    if row is not None:
        say(f"licence: {row.licence.name}, {row.licence.url}")
        for duty in row.licence.duties:
            say(f"  {duty}")
