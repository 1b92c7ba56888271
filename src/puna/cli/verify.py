"""``puna verify``: compare models of the store with what their sources publish."""

from __future__ import annotations

from typing import Annotated

import typer

from puna.cli.output import print_rows, say
from puna.errors import StoreError, UnknownModelError

__all__ = ["verify"]


def verify(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A name of `puna list`; default: all.", show_default=False),
    ] = None,
) -> None:
    """Check models for damage.

    Every file is read; its size and checksum must be those that its source publishes.
    """
    from puna.models.store import InstalledModel, find, installed
    from puna.models.verify import verify as check

    models: list[InstalledModel] = installed()
    if model is not None:
        found = find(model)
        if found is None:
            listing = ", ".join(other.name for other in models) or "none"
            raise UnknownModelError(f"the store has no model {model!r}; it has: {listing}")
        models = [found]
    bad = []
    for one in models:
        say(f"reading {one.name}")
        checks = check(one)
        if not checks:
            print_rows([(one.name, "put there by hand: nothing says what it must be")])
            continue
        print_rows([(f"{one.name}/{c.name}", f"{c.verdict} {c.detail}".rstrip()) for c in checks])
        if not all(c.is_good for c in checks):
            bad.append(one.name)
    if bad:
        raise StoreError(
            f"damaged: {', '.join(bad)}; `puna rm NAME` and then `puna pull NAME` fetches a model anew"
        )
