"""A model as a GGUF file, for llama.cpp and what is built on it: `write_gguf`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.export.folded import require_plain
from puna.export.gguf_file import GgufTensor, Value, write_gguf_file
from puna.export.gguf_vocabulary import vocabulary_keys
from puna.export.integers import bf16_bits, integers_of, matrices, same_grid
from puna.models.blocks import known_dtypes
from puna.models.blocks_32 import from_integers
from puna.models.checkpoint import Checkpoint
from puna.models.config import ModelConfig
from puna.models.gguf import ROPE_FACTORS, gguf_name
from puna.models.new_file import new_file
from puna.models.packed import Progress
from puna.models.rotary import interleaved_rows

__all__ = ["write_gguf"]

# Our formats in GGUF's words. What has none of ours is GGUF's already.
_TYPES = {
    "int4_group32": "Q4_0",
    "int4_group32_f32": "Q4_0",
    "int8_group32": "Q8_0",
    "int8_channel": "Q8_0",
    "bf16": "BF16",
    "f32": "F32",
}
# `general.file_type`, which tells people what most matrices are.
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "BF16": 32}
_QUANTIZATION_VERSION = 2
_KEYS_BYTES = 64 * 1024 * 1024  # more than the keys of any Llama take


def write_gguf(checkpoint: Checkpoint, out: Path, progress: Progress | None = None) -> list[str]:
    """Write a GGUF file, all of it or nothing, without rounding wherever GGUF has the type.

    Integers of 4 bits in groups of 32 are Q4_0 and those of 8 bits Q8_0, integer by integer and scale by
    scale; f32, f16 and bf16 stay what they are, norms are f32. Integers of 8 bits with a scale a row keep
    the integers, and have that scale rounded to the float16 of a group of Q8_0.

    Args:
        checkpoint: the source; one matrix at a time is in memory.
        out: the file to make; it must not exist yet.
        progress: told of every tensor.

    Returns:
        What was rounded, a sentence each.

    Raises:
        CheckpointError: the source is damaged, or GGUF cannot say what it is.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    require_plain(checkpoint, "GGUF")
    config = checkpoint.config
    types = {name: _type_of(checkpoint, name) for name in matrices(checkpoint)}
    keys = _model_keys(checkpoint.path.name.removesuffix(".gguf"), config, types)
    keys |= vocabulary_keys(checkpoint.vocabulary(), config.vocab_size)
    shapes = config.tensor_shapes()
    done = 0

    def produce(name: str) -> NDArray[np.uint8]:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(shapes))
        return _contents(checkpoint, name, types.get(name))

    tensors = [
        GgufTensor(gguf_name(name), types.get(name, "F32"), shape, lambda name=name: produce(name))  # type: ignore[misc]
        for name, shape in shapes.items()
    ]
    factors = _rope_factors(config)
    if factors is not None:
        tensors.insert(0, GgufTensor(ROPE_FACTORS, "F32", factors.shape, lambda: factors))
    with new_file(out, sum(tensor.n_bytes for tensor in tensors) + _KEYS_BYTES) as path:
        write_gguf_file(path, keys, tensors)
    return _notes(checkpoint, types)


def _notes(checkpoint: Checkpoint, types: Iterable[str]) -> list[str]:
    rows = [name for name in types if checkpoint.dtypes[name] == "int8_channel"]
    n_groups = sum(checkpoint.dtypes[name] == "int4_group32_f32" for name in types)
    notes = []
    if rows:
        notes.append(
            f"{', '.join(rows)}: the 8-bit integers stay, their scale a row (float32) is rounded to Q8_0's "
            "float16"
        )
    if n_groups:
        notes.append(f"the float32 scales of {n_groups} matrices are rounded to Q4_0's float16")
    return notes


def _type_of(checkpoint: Checkpoint, name: str) -> str:
    dtype = same_grid(checkpoint, name)
    kind = _TYPES.get(dtype, dtype)
    if kind not in known_dtypes():
        raise CheckpointError(f"{checkpoint.path}: GGUF has no type for {name!r:.100}, stored as {dtype}")
    columns = checkpoint.config.tensor_shapes()[name][1]
    if kind.startswith("Q") and columns % 32:
        raise CheckpointError(
            f"{checkpoint.path}: {kind} needs rows of a multiple of 32 elements, {name!r:.100} has "
            f"{columns}; use --format bf16"
        )
    return kind


def _contents(checkpoint: Checkpoint, name: str, kind: str | None) -> NDArray[np.uint8]:
    """The bytes of a tensor, ``[rows, bytes a row]``, in GGUF's order of rows; norms float32."""
    if kind is None:
        return checkpoint.tensor(name).to_float32().view(np.uint8)
    data = _rows(checkpoint, name, kind)
    heads = {"self_attn.q_proj": checkpoint.config.n_heads, "self_attn.k_proj": checkpoint.config.n_kv_heads}
    n_heads = next((n for part, n in heads.items() if part in name), None)
    return data if n_heads is None else interleaved_rows(data, n_heads)


def _rows(checkpoint: Checkpoint, name: str, kind: str) -> NDArray[np.uint8]:
    tensor = None
    if checkpoint.dtypes[name] == kind:
        tensor = checkpoint.tensor(name)
        if tensor.dtype == kind:  # as it is, whatever it is
            return tensor.data.reshape(tensor.shape[0], -1)
    if kind not in ("Q4_0", "Q8_0"):
        values = (tensor or checkpoint.tensor(name)).to_float32()
        return (bf16_bits(values) if kind == "BF16" else values).view(np.uint8)
    parts = integers_of(checkpoint, name)
    assert parts is not None, f"{name} is stored as {checkpoint.dtypes[name]}"
    integers, scales = parts
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16)
    if not np.isfinite(halves).all():
        raise CheckpointError(f"{name!r:.100} has a scale beyond the range of float16; use --format bf16")
    groups = np.broadcast_to(halves, (len(halves), integers.shape[1] // 32))
    return from_integers(integers, groups, 4 if kind == "Q4_0" else 8)


def _rope_factors(config: ModelConfig) -> NDArray[np.float32] | None:
    """Divisors of the rotary frequencies, where neither none nor one for all says it."""
    if config.rope_scaling is None or config.rope_scaling.kind == "linear":
        return None
    if config.rope_scaling.kind == "factors":
        return np.array(config.rope_scaling.factors, np.float32)
    half = config.head_dim // 2
    plain = [config.rope_theta ** (-i / half) for i in range(half)]
    return np.array(
        [f / scaled for f, scaled in zip(plain, config.rope_frequencies(), strict=True)], np.float32
    )


def _model_keys(name: str, config: ModelConfig, types: dict[str, str]) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": name,
        "general.quantization_version": _QUANTIZATION_VERSION,
        "llama.block_count": config.n_layers,
        "llama.context_length": config.max_seq_len,
        "llama.embedding_length": config.dim,
        "llama.feed_forward_length": config.ffn_dim,
        "llama.attention.head_count": config.n_heads,
        "llama.attention.head_count_kv": config.n_kv_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.attention.layer_norm_rms_epsilon": config.norm_eps,
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": config.rope_theta,
        "llama.vocab_size": config.vocab_size,
    }
    most = Counter(types.values()).most_common(1)[0][0]
    if most in _FILE_TYPES:
        keys["general.file_type"] = _FILE_TYPES[most]
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        keys["llama.rope.scaling.type"] = "linear"
        keys["llama.rope.scaling.factor"] = config.rope_scaling.factor
    return keys
