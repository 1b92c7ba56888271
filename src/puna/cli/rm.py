"""``puna rm``: delete a model from the store."""

from __future__ import annotations

from typing import Annotated

import typer

from puna.cli.output import say, size_text

__all__ = ["remove"]


def remove(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name of `puna list`.")],
) -> None:
    """Delete a model from the store.

    Files that are used where they are belong to others and stay.
    """
    from puna.models.store import remove as delete

    removed = delete(model)
    if removed.is_linked:
        say(f"{removed.name} is forgotten; its files stay in {removed.path}")
    else:
        say(f"{removed.name} is deleted: {size_text(removed.n_bytes)}")
