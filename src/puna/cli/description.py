"""What a model is, told from its files' headers: no weight is read."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from puna.errors import UnknownModelError
from puna.models.catalogue import CatalogueRow, resolve
from puna.models.checkpoint import Checkpoint
from puna.models.config import ModelConfig

__all__ = ["cache_bytes_per_token", "describe", "describe_row", "find_local"]

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
    from puna.models.store import installed, path_of

    if os.path.exists(os.path.expanduser(name_or_path)):
        return None, path_of(name_or_path)
    try:
        row = resolve(name_or_path)
    except UnknownModelError:
        return None, path_of(name_or_path)  # fetches nothing: only what is in the catalogue can be fetched
    return row, next((model.path for model in installed() if model.name == row.name), None)


def describe_row(row: CatalogueRow) -> dict[str, Any]:
    """What the catalogue says about a model that is not in the store."""
    return {
        "name": row.name,
        "is_installed": False,
        "description": row.description,
        "licence": row.licence,
        "download_bytes": row.source.wheel_bytes,
        "file_bytes": row.source.member_bytes,
    }


def describe(checkpoint: Checkpoint, row: CatalogueRow | None) -> dict[str, Any]:
    """What a model's files say about it.

    Args:
        checkpoint: the open model.
        row: its row in the catalogue, where it has one.

    Returns:
        JSON values: numbers in bytes and tokens.
    """
    from puna.evaluate.speed import checkpoint_bytes
    from puna.models.packed import FORMATS
    from puna.prompt import chat_format
    from puna.tokens import Tokenizer

    config, vocabulary = checkpoint.config, checkpoint.vocabulary()
    context = min(config.max_seq_len, 8192)
    weights = {wanted: _weight_bytes(checkpoint, wanted) for wanted in FORMATS}
    cache = cache_bytes_per_token(config, is_exact=set(_matrices(checkpoint).values()) == {"F32"})
    return {
        "name": checkpoint.path.stem if row is None else row.name,
        "is_installed": True,
        "licence": None if row is None else row.licence,
        "path": str(checkpoint.path),
        "kind": checkpoint.kind,
        "file_bytes": checkpoint_bytes(checkpoint.path),
        "parameters": config.n_parameters,
        "architecture": _architecture(config),
        "context_tokens": config.max_seq_len,
        "vocabulary": config.vocab_size,
        "chat_format": chat_format(vocabulary, Tokenizer(vocabulary)).name,
        "tensors": _tensors(checkpoint),
        "weight_bytes": weights,
        "default_context_tokens": context,
        "cache_bytes_per_token": cache,
        "memory_bytes": weights["auto"] + cache * context,
    }


def cache_bytes_per_token(config: ModelConfig, *, is_exact: bool) -> int:
    """Bytes of keys and values that a position takes in the native engine's cache.

    Args:
        config: the architecture.
        is_exact: every matrix is float32, so the cache is too; else it has 16 bits.
    """
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * (4 if is_exact else 2)


def _matrices(checkpoint: Checkpoint) -> dict[str, str]:
    shapes = checkpoint.config.tensor_shapes()
    return {name: checkpoint.dtypes[name] for name, shape in shapes.items() if len(shape) == 2}


def _weight_bytes(checkpoint: Checkpoint, wanted: str) -> int:
    from puna import _native
    from puna.models.packed import weight_format

    total = 0
    for name, shape in checkpoint.config.tensor_shapes().items():
        if len(shape) == 1:
            total += 4 * shape[0]
        else:
            total += _native.packed_bytes(weight_format(name, checkpoint.dtypes[name], wanted), *shape)
    return total


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
    }
