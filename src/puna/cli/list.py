"""``puna list``: the models on this machine, or all that Puna knows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from puna.cli import options
from puna.cli.output import print_json, print_table, say, size_text

__all__ = ["list_models"]


def list_models(
    everything: Annotated[
        bool, typer.Option("--all", help="Every model that Puna knows by name, here or not.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """List models.

    Without `--all`: those in the store, which are ready to use.
    """
    models = _known() if everything else _installed()
    if as_json:
        print_json(models)
    elif everything:
        print_table(
            ("name", "parameters", "context", "download", "licence", "state"),
            [
                (
                    model["name"],
                    model["parameters"],
                    f"{model['context_tokens']:,}",
                    size_text(model["file_bytes"]),
                    model["licence"],
                    model["state"],
                )
                for model in models
            ],
        )
    elif models:
        print_table(
            ("name", "size", "from", "path"),
            [
                (m["name"], size_text(m["bytes"]), m["origin"] or "put there by hand", m["path"])
                for m in models
            ],
        )
    else:
        say("the store has no models; `puna list --all` lists those that `puna pull` can fetch")
    if not everything:
        _tell_unfinished()


def _tell_unfinished() -> None:
    from puna.models.store import unfinished

    for model in unfinished():
        say(
            f"{model.name} is not whole, {size_text(model.n_bytes)} of it are here: `puna pull` it again to "
            f"go on, or `puna rm {model.name}`"
        )


def _installed() -> list[dict[str, Any]]:
    from puna.models.store import installed

    return [
        {
            "name": model.name,
            "path": str(model.path),
            "bytes": model.n_bytes,
            "origin": model.source.origin if model.source else None,
            "licence": model.source.licence if model.source else None,
            "is_whole": model.is_whole,
            "is_linked": model.is_linked,
        }
        for model in installed()
    ]


def _known() -> list[dict[str, Any]]:
    from puna.cli.description import sources_of
    from puna.models.catalogue import CATALOGUE
    from puna.models.fit import fit_of_row
    from puna.models.store import installed

    here = {model.name for model in installed()}
    return [
        {
            "name": row.name,
            "description": row.description,
            "parameters": row.published_parameters,
            "context_tokens": row.context_tokens,
            "file_bytes": fit_of_row(row).source_bytes,
            "licence": row.licence.name,
            "sources": sources_of(row),
            "is_runnable": row.is_runnable,
            "state": "here" if row.name in here else "" if row.is_runnable else "not run yet",
        }
        for row in CATALOGUE
    ]
