"""``puna show``: what a model is and needs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from puna.cli import options
from puna.cli.output import print_json, print_rows, size_text

__all__ = ["show"]


def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name or path of a model.")],
    as_json: options.Json = False,
) -> None:
    """Tell what a model is and needs.

    Nothing is fetched, and no weights are loaded.
    """
    from puna.cli.description import describe, describe_row, find_local
    from puna.models.open import open_checkpoint

    row, path = find_local(model)
    if path is not None:
        facts = describe(open_checkpoint(path), row)
    elif row is not None:
        facts = describe_row(row)
    if as_json:
        print_json(facts)
    else:
        print_rows(_rows(facts) if facts["is_installed"] else _catalogue_rows(facts))


def _catalogue_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("name", facts["name"]),
        ("what", facts["description"]),
        ("licence", facts["licence"]),
        ("download", size_text(facts["download_bytes"])),
        ("file size", size_text(facts["file_bytes"])),
        ("installed", f"no; `puna chat {facts['name']}` fetches it"),
    ]


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
        ("positions", f"rotary base {shape['rope_theta']:g}, scaling {shape['rope_scaling'] or 'none'}"),
        ("context", f"{facts['context_tokens']:,} tokens"),
        ("vocabulary", f"{facts['vocabulary']:,} tokens"),
        ("chat format", facts["chat_format"]),
        *(("matrices", _matrices(row)) for row in facts["tensors"]),
        *((f"weights, {wanted}", size_text(n_bytes)) for wanted, n_bytes in facts["weight_bytes"].items()),
        (
            "memory",
            f"{size_text(facts['memory_bytes'])} with weights as auto and one full context of "
            f"{facts['default_context_tokens']:,} tokens",
        ),
    ]


def _matrices(row: dict[str, Any]) -> str:
    how = "lossless" if row["is_lossless"] else "rounded"
    return f"{row['count']} stored as {row['stored']}, run as {row['packed']} ({how})"
