"""The formats of the key-value cache: which there are, which one a model gets, and what a position takes."""

from __future__ import annotations

from collections.abc import Iterable

from puna import _native
from puna.errors import ConfigError, nearest
from puna.models.config import ModelConfig

__all__ = ["CACHES", "cache_bytes_per_token", "cache_format"]

CACHES = ("auto", "f32", "f16", "int8")


def cache_format(wanted: str, weight_formats: Iterable[str]) -> str:
    """How keys and values of a model are kept.

    Args:
        wanted: one of `CACHES`. ``auto`` is ``f32`` where all matrices are and else ``f16``, which is
            enough for weights that were rounded themselves. ``int8`` takes about half of that, see
            docs/formats.md.
        weight_formats: packed formats of the model's matrices.

    Returns:
        ``f32``, ``f16`` or ``int8``.

    Raises:
        ConfigError: `wanted` is not one of `CACHES`.
    """
    if wanted not in CACHES:
        raise ConfigError(f"cache {wanted!r} is unknown; {nearest(wanted, CACHES)}")
    if wanted != "auto":
        return wanted
    return "f32" if set(weight_formats) == {"f32"} else "f16"


def cache_bytes_per_token(config: ModelConfig, cache: str) -> int:
    """Bytes of keys and values that a position takes in the native engine's cache, over all layers.

    Args:
        config: the architecture.
        cache: as `cache_format` returns it.
    """
    block = _native.cache_block_bytes(cache, config.head_dim)
    return config.n_layers * config.n_kv_heads * block // _native.BLOCK_TOKENS
