"""A quantized model as a program for ExecuTorch: `write_executorch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError, ConfigError
from puna.export.integers import bf16_bits, integers_of, matrices, same_grid
from puna.models.checkpoint import Checkpoint, Vocabulary
from puna.models.config import ModelConfig
from puna.models.new_file import new_file
from puna.models.packed import Progress, is_float

__all__ = ["DEFAULT_CONTEXT", "write_executorch"]

DEFAULT_CONTEXT = 2048
"""Positions of the cache where nothing is said: a program takes its memory when it is loaded."""

_TABLES = ("model.embed_tokens.weight", "lm_head.weight")
_MIN_CONTEXT = 4  # torch traces with three tokens, as sizes of one and two may become constants
_PROGRAM_BYTES = 16 * 1024 * 1024  # more than the graph of any Llama takes


def write_executorch(
    checkpoint: Checkpoint, out: Path, progress: Progress | None = None, *, context: int = DEFAULT_CONTEXT
) -> list[str]:
    """Write a ``.pte`` file, all of it or nothing.

    Integers stay. Scales of 4-bit groups become bfloat16, the one type that XNNPACK has for them; scales of
    rows stay float32, everything else is float32. All integers are in memory, one a byte, and again as they
    are packed.

    Args:
        checkpoint: a quantized model: 4-bit groups of 32 in the blocks, 8-bit rows for embedding and head.
        out: the file to make; it must not exist yet.
        progress: told of every block, and at the end of the lowering, which takes longest.
        context: positions of the cache, at most; the model's own where that is less.

    Returns:
        What was rounded, a sentence each.

    Raises:
        ConfigError: ExecuTorch or PyTorch is not there, or `context` is too small.
        CheckpointError: the source is damaged, or XNNPACK cannot compute what it is.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    config = checkpoint.config
    positions = min(context, config.max_seq_len)
    if positions < _MIN_CONTEXT:
        raise ConfigError(
            f"a program needs a context of {_MIN_CONTEXT} tokens or more, got {context} and a model of "
            f"{config.max_seq_len}"
        )
    _check(checkpoint)
    vocabulary = checkpoint.vocabulary()
    source = _Integers(checkpoint)
    with new_file(out, _size(checkpoint)) as path:
        try:
            from puna.nn.executorch import Program, Source, lower

            program = Program(config, Source(source.integers, source.values), positions, progress)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"`puna export --to executorch` needs the package {error.name}; pip install 'puna[export]'"
            ) from error
        lower(program, path, _metadata(config, vocabulary, positions))
    if progress is not None:
        progress(config.n_layers + 1, config.n_layers + 1)
    return source.notes()


def _metadata(config: ModelConfig, vocabulary: Vocabulary, positions: int) -> dict[str, Any]:
    """What ExecuTorch's runners ask a program."""
    begin = {} if vocabulary.bos_id is None else {"get_bos_id": vocabulary.bos_id}
    return begin | {
        "get_eos_ids": list(vocabulary.eos_ids),
        "get_vocab_size": config.vocab_size,
        "get_n_layers": config.n_layers,
        "get_max_seq_len": positions,
        "get_max_context_len": positions,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
    }


def _quantized(checkpoint: Checkpoint) -> list[str]:
    return [name for name in matrices(checkpoint) if not is_float(name)]


def _check(checkpoint: Checkpoint) -> None:
    for name in _quantized(checkpoint):
        dtype, columns = same_grid(checkpoint, name), checkpoint.config.tensor_shapes()[name][1]
        is_table = name in _TABLES
        wanted = "8-bit rows for embedding and head" if is_table else "4-bit groups of 32 for the blocks"
        if dtype not in (("int8_channel",) if is_table else ("int4_group32", "int4_group32_f32")):
            raise CheckpointError(
                f"{checkpoint.path}: ExecuTorch's XNNPACK takes {wanted}, {name!r:.100} is stored as "
                f"{dtype}; use --format int4, or `puna quantize --rule clip`"
            )
        if not is_table and columns % 32:
            raise CheckpointError(
                f"{checkpoint.path}: XNNPACK needs rows of a multiple of 32 elements, {name!r:.100} has "
                f"{columns}; Puna runs this model, and `puna export --to huggingface` writes it"
            )


def _size(checkpoint: Checkpoint) -> int:
    """Bytes of the file: the integers, their scales, and a tied table twice."""
    shapes, config = checkpoint.config.tensor_shapes(), checkpoint.config
    twice = shapes[_TABLES[0]][0] * (shapes[_TABLES[0]][1] + 4) if config.tied_embeddings else 0
    return _PROGRAM_BYTES + twice + sum(_bytes_of(name, shape) for name, shape in shapes.items())


def _bytes_of(name: str, shape: tuple[int, ...]) -> int:
    n = int(np.prod(shape))
    if len(shape) == 1 or is_float(name):
        return 4 * n
    return n + 4 * shape[0] if name in _TABLES else n // 2 + n // 16


class _Integers:
    """Gives the weights in XNNPACK's terms, and counts what is rounded."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._n_rounded, self._n_matrices = 0, 0

    def values(self, name: str) -> NDArray[np.float32]:
        """A tensor that stays float, as float32."""
        return np.ascontiguousarray(self._checkpoint.tensor(name).to_float32())

    def integers(self, name: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Integers ``[out, in]`` and scales ``[out, in / 32]``, or ``[out]`` for rows; all above zero."""
        parts = integers_of(self._checkpoint, name)
        assert parts is not None, f"{name} is checked to be integers"
        q, scales = np.ascontiguousarray(parts[0]), parts[1].astype(np.float32)
        if name in _TABLES:
            return q, _row_scales(scales[:, 0])
        q, scales = self._above_zero(name, q, scales)
        rounded = (bf16_bits(scales).astype(np.uint32) << 16).view(np.float32)
        self._n_matrices += 1
        self._n_rounded += not np.array_equal(rounded, scales)
        return q, rounded

    def _above_zero(
        self, name: str, q: NDArray[np.int8], scales: NDArray[np.float32]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """The same matrix without scales that XNNPACK refuses: below zero, and zero."""
        groups = q.reshape(len(q), -1, 32)
        below = scales < 0
        stuck = below & (groups == -8).any(-1)
        if stuck.any():
            raise CheckpointError(
                f"{self._checkpoint.path}: XNNPACK knows no scales below zero, which {int(stuck.sum())} of "
                f"{stuck.size} groups of {name!r:.100} have, with an integer of -8 that has no opposite; "
                "quantize the original with a rule that makes none, `puna quantize --rule clip` or "
                "`--rule no-clipping`"
            )
        scales = np.abs(scales)
        # What is too small to be a normal float is refused like zero; nothing adds up to anything there.
        nothing = scales < np.finfo(np.float32).tiny
        signs = np.where(nothing, 0, np.where(below, -1, 1)).astype(np.int8)
        return (groups * signs[..., None]).reshape(q.shape), np.where(nothing, np.float32(1), scales)

    def notes(self) -> list[str]:
        """What was rounded."""
        if not self._n_rounded:
            return []
        return [f"the scales of {self._n_rounded} of {self._n_matrices} matrices are rounded to bfloat16"]


def _row_scales(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    # A row of zeros has the scale 0, which is not a scale to XNNPACK.
    return np.where(scales == 0, np.float32(1), scales)
