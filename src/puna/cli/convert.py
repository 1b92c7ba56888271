"""``puna convert``: a model in Puna's own layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from puna.cli import options
from puna.cli.output import say, size_text
from puna.cli.progress import FetchProgress, PackProgress

__all__ = ["convert"]


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="Name or path of a model.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make; it must not exist yet.")],
    format: options.Format = "auto",
) -> None:
    """Pack a model for quick loading.

    The folder holds the weights as the engine wants them, so that loading is a memory map. Made from a Llama,
    its name must begin with "Llama", as the licence asks.
    """
    from puna.evaluate.speed import checkpoint_bytes
    from puna.models.licences import check_derived_name
    from puna.models.local import known_row
    from puna.models.open import open_checkpoint
    from puna.models.packed import write_checkpoint
    from puna.models.store import path_of

    row = None if os.path.exists(os.path.expanduser(source)) else known_row(source)
    if row is not None:
        check_derived_name(out.absolute().name, row.licence)
    with FetchProgress() as fetching, PackProgress("converting") as packing:
        path = path_of(source, fetching)
        write_checkpoint(open_checkpoint(path), out, format, packing)
    say(f"{path}: {size_text(checkpoint_bytes(path))}")
    say(f"{out}: {size_text(checkpoint_bytes(out))} as {format}")
    if row is not None:
        say(f"licence: {row.licence.name}, {row.licence.url}")
        for duty in row.licence.duties:
            say(f"  {duty}")
