"""The GGUF spelling of a config: `read_gguf`, for the keys under ``llama.``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from puna.errors import CheckpointError
from puna.models.config import ModelConfig, RopeScaling, as_float

__all__ = ["read_gguf"]

# Keys under `llama.` that repeat what others say or only help other programs.
_GGUF_IGNORED = frozenset(
    {"vocab_size", "attention.key_length", "attention.value_length", "rope.dimension_count"}
)


def read_gguf(metadata: Mapping[str, Any], rope_factors: tuple[float, ...]) -> ModelConfig:
    """Read a file's keys, see `ModelConfig.from_gguf`; the result is not validated yet."""
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise CheckpointError(
            f"GGUF: `general.architecture` must be 'llama', got {architecture!r:.100}; "
            "Puna runs the Llama architecture only"
        )
    raw = {k.removeprefix("llama."): v for k, v in metadata.items() if k.startswith("llama.")}

    def whole(key: str, default: int | None = None) -> int:
        value = raw.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise CheckpointError(f"GGUF: `llama.{key}` must be a whole number, got {value!r:.100}")
        return value

    dim, n_heads = whole("embedding_length"), whole("attention.head_count")
    if n_heads < 1:
        raise CheckpointError(f"GGUF: `llama.attention.head_count` must be at least 1, got {n_heads}")
    head_dim = whole("attention.key_length", dim // n_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if whole(key, head_dim) != head_dim:
            raise CheckpointError(f"GGUF: `llama.{key}` must equal the head width {head_dim}")
    scaling = RopeScaling(kind="factors", factors=rope_factors) if rope_factors else None
    if "rope.scaling.type" in raw:
        kind, factor = raw.pop("rope.scaling.type"), raw.pop("rope.scaling.factor", 1.0)
        if kind == "linear":
            if scaling is not None:
                raise CheckpointError("GGUF: rope scaling must be 'linear' or by factors, got both")
            scaling = RopeScaling(kind="linear", factor=as_float("rope.scaling.factor", factor))
        elif kind != "none":
            raise CheckpointError(f"GGUF: rope scaling must be 'linear' or 'none', got {kind!r:.100}")
    vocabulary = metadata.get("tokenizer.ggml.tokens")
    config = ModelConfig(
        dim=dim,
        n_layers=whole("block_count"),
        n_heads=n_heads,
        n_kv_heads=whole("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        ffn_dim=whole("feed_forward_length"),
        vocab_size=whole("vocab_size", len(vocabulary) if isinstance(vocabulary, list) else None),
        max_seq_len=whole("context_length"),
        rope_theta=as_float("llama.rope.freq_base", raw.pop("rope.freq_base", 10_000.0)),
        rope_scaling=scaling,
        norm_eps=as_float(
            "llama.attention.layer_norm_rms_epsilon", raw.pop("attention.layer_norm_rms_epsilon", 1e-5)
        ),
        tied_embeddings=True,
    )
    unknown = sorted(set(raw) - _GGUF_IGNORED)
    if unknown:
        raise CheckpointError(
            f"GGUF: unknown keys {['llama.' + key for key in unknown]!r:.200}; Puna does not run a model "
            "whose config it does not understand in full"
        )
    return config
