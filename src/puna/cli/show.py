"""``puna show``: what a model is and needs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from puna.cli import options
from puna.cli.output import print_json, print_rows, size_text

__all__ = ["show"]


def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name or path of a model.")],
    context: options.Context = None,
    cache: options.Cache = "auto",
    as_json: options.Json = False,
) -> None:
    """Tell what a model is and needs.

    Nothing is fetched, and no weights are loaded.
    """
    from puna.cli.description import describe, describe_row, find_local
    from puna.models.open import open_checkpoint

    row, path = find_local(model)
    if path is not None:
        facts = describe(open_checkpoint(path), row, context, cache)
    elif row is not None:
        facts = describe_row(row, context, cache)
    if as_json:
        print_json(facts)
    else:
        print_rows(_rows(facts) if facts["is_installed"] else _catalogue_rows(facts))


def _catalogue_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    name, count = facts["name"], facts["published_parameters"]
    later = "" if facts["is_runnable"] else ", and this version does not run it yet"
    return [
        ("name", name),
        ("what", facts["description"]),
        ("parameters", f"{facts['parameters']:,}, published as {count}"),
        ("context", f"{facts['context_tokens']:,} tokens"),
        ("languages", ", ".join(facts["languages"])),
        ("chat format", f"{facts['chat_format']}{', calls tools' if facts['has_tool_calling'] else ''}"),
        ("licence", f"{facts['licence']}, {facts['licence_url']}"),
        *(("", duty) for duty in facts["duties"]),
        ("sources", ", ".join(facts["sources"])),
        ("download", size_text(facts["download_bytes"]) + _fits(facts["fits_disk"], "on this disk")),
        ("file size", size_text(facts["file_bytes"])),
        *_memory_rows(facts),
        ("installed", f"no; `puna pull {name}` fetches it{later}"),
    ]


def _memory_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    context = f"{facts['default_context_tokens']:,} tokens"
    about = "" if facts.get("is_runnable", True) else "about "
    return [
        (
            f"memory, {wanted}",
            f"{about}{size_text(need['total_bytes'])}: weights {size_text(need['weight_bytes'])}, {context} "
            f"{size_text(need['cache_bytes'])}, work {size_text(need['workspace_bytes'])}"
            + _fits(need["fits"], "this machine"),
        )
        for wanted, need in facts["memory"].items()
    ]


def _fits(fits: bool | None, where: str) -> str:
    return "" if fits is None else f"; {'fits' if fits else 'does not fit'} {where}"


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    shape = facts["architecture"]
    return [
        ("name", facts["name"]),
        ("path", facts["path"]),
        ("kind", facts["kind"]),
        ("licence", facts["licence"] or "see where the model is from"),
        ("file size", size_text(facts["file_bytes"])),
        ("parameters", f"{facts['parameters']:,}"),
        (
            "architecture",
            f"{shape['n_layers']} layers of {shape['dim']}, feed-forward {shape['ffn_dim']}, "
            f"{shape['n_heads']} heads of {shape['head_dim']}, {shape['n_kv_heads']} for keys and values, "
            f"{'tied' if shape['tied_embeddings'] else 'separate'} embeddings",
        ),
        *(("", f"with {addition}") for addition in shape["additions"]),
        ("positions", f"rotary base {shape['rope_theta']:g}, scaling {shape['rope_scaling'] or 'none'}"),
        ("context", f"{facts['context_tokens']:,} tokens"),
        ("vocabulary", f"{facts['vocabulary']:,} tokens"),
        ("chat format", facts["chat_format"]),
        *(("matrices", _matrices(row)) for row in facts["tensors"]),
        *_memory_rows(facts),
    ]


def _matrices(row: dict[str, Any]) -> str:
    how = "lossless" if row["is_lossless"] else "rounded"
    return f"{row['count']} stored as {row['stored']}, run as {row['packed']} ({how})"
