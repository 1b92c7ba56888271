"""A model with 4-bit blocks as transformers and vLLM load it through compressed-tensors.

Source: https://github.com/vllm-project/compressed-tensors, compressors/pack_quantized.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.export.folded import require_plain
from puna.export.huggingface import as_dtype, hf_config
from puna.export.integers import integers_of, matrices
from puna.models.checkpoint import Checkpoint
from puna.models.new_folder import new_folder
from puna.models.packed import Progress, write_json, write_vocabulary
from puna.models.safetensors import NewTensor, write_safetensors

__all__ = ["write_compressed_tensors"]

# Of everything that is not 4-bit: the scales are float16, and a program holds both in one type.
_DTYPE = "F16"
_WEIGHTS = {
    "num_bits": 4,
    "type": "int",
    "symmetric": True,
    "strategy": "group",
    "group_size": 32,
    "dynamic": False,
}
_ACTIVATIONS = {"num_bits": 8, "type": "int", "symmetric": False, "strategy": "token", "dynamic": True}
_QUANTIZATION = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": _WEIGHTS,
            "input_activations": _ACTIVATIONS,
            "format": "pack-quantized",
        }
    },
}


def write_compressed_tensors(
    checkpoint: Checkpoint, out: Path, progress: Progress | None = None
) -> list[str]:
    """Write a folder of the kind "pack-quantized", all of it or nothing.

    The matrices of the blocks keep their integers and scales; activations are described as this scheme has
    them: rounded to 8 bits a token, with a zero point. Embedding, head and norms become float16.

    Args:
        checkpoint: the source, with 4-bit blocks in groups of 32.
        out: the folder to make; it must not exist yet.
        progress: told of every tensor.

    Returns:
        What was rounded, a sentence each.

    Raises:
        CheckpointError: the source is damaged, has no 4-bit blocks, or transformers has no such model.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    require_plain(checkpoint, "compressed-tensors")
    writer = _Writer(checkpoint, progress)
    config = hf_config(checkpoint, _DTYPE) | {"quantization_config": _QUANTIZATION}
    vocabulary = checkpoint.vocabulary()
    tensors = writer.tensors()
    with new_folder(out, sum(tensor.n_bytes for tensor in tensors)) as folder:
        write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
        write_json(folder / "config.json", config)
        write_vocabulary(folder, vocabulary)
    return writer.notes()


class _Writer:
    """Makes the tensors one by one, and counts which of them were rounded."""

    def __init__(self, checkpoint: Checkpoint, progress: Progress | None) -> None:
        self._checkpoint, self._progress = checkpoint, progress
        self._shapes = checkpoint.config.tensor_shapes()
        self._packed = matrices(checkpoint, in_blocks=True)
        for name in self._packed:
            self._check(name)
        self._rounded: list[str] = []
        self._done = 0

    def _check(self, name: str) -> None:
        dtype, columns = self._checkpoint.dtypes[name], self._shapes[name][1]
        if dtype != "Q4_0" and not dtype.startswith("int4_group32"):
            raise CheckpointError(
                f"compressed-tensors takes 4-bit integers in groups of 32 for the blocks, {name!r:.100} is "
                f"stored as {dtype}; use --format int4, or `puna quantize`"
            )
        if columns % 32:
            raise CheckpointError(
                f"compressed-tensors needs rows of a multiple of 32 elements, {name!r:.100} has {columns}; "
                "Puna runs this model, and `puna export --to huggingface` writes it"
            )

    def tensors(self) -> list[NewTensor]:
        """Everything that goes into the file."""
        made: list[NewTensor] = []
        for name, shape in self._shapes.items():
            made += self._matrix(name, *shape) if name in self._packed else [self._plain(name, shape)]
        return made

    def _plain(self, name: str, shape: tuple[int, ...]) -> NewTensor:
        def produce() -> NDArray[Any]:
            self._advance()
            stored, is_exact = as_dtype(name, self._checkpoint.tensor(name).to_float32(), _DTYPE)
            if not is_exact:
                self._rounded.append(name)
            return stored

        return NewTensor(name, _DTYPE, shape, produce)

    def _matrix(self, name: str, rows: int, columns: int) -> list[NewTensor]:
        """Integers, scales and shape of a matrix; both halves are made when the first is asked for."""
        kept: list[NDArray[Any]] = []

        def packed() -> NDArray[Any]:
            self._advance()
            parts = integers_of(self._checkpoint, name)
            assert parts is not None, f"{name} is checked to be integers"
            scales, is_exact = as_dtype(name, parts[1].astype(np.float32), _DTYPE)
            if not is_exact:
                self._rounded.append(name)
            kept.append(scales)
            return _pack_int32(parts[0])

        return [
            NewTensor(f"{name}_packed", "I32", (rows, columns // 8), packed),
            NewTensor(f"{name}_scale", _DTYPE, (rows, columns // 32), lambda: kept.pop()),
            NewTensor(f"{name}_shape", "I64", (2,), lambda: np.array([rows, columns], np.int64)),
        ]

    def _advance(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, len(self._shapes))

    def notes(self) -> list[str]:
        """What was rounded."""
        scales = [name for name in self._rounded if name in self._packed]
        others = [name for name in self._rounded if name not in self._packed]
        return [
            *([f"numbers of {', '.join(others)} are rounded to float16"] if others else []),
            *([f"scales of {len(scales)} matrices are rounded from float32 to float16"] if scales else []),
        ]


def _pack_int32(integers: NDArray[np.int8]) -> NDArray[np.int32]:
    """Eight integers a word, plus 8, the first in the lowest bits: ``[out, in]`` to ``[out, in / 8]``."""
    codes = (integers + np.int8(8)).view(np.uint8).astype(np.uint32).reshape(len(integers), -1, 8)
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    words: NDArray[np.uint32] = np.bitwise_or.reduce(codes << shifts, axis=2)
    return words.view(np.int32)
