"""Writing the layout of the official quantized Llama 3.2 models: `write_meta_quantized`.

What `puna.models.meta_quantized` reads, and so do the programs that were made for those models: llama-stack
0.1.4 and ExecuTorch's export. Integers and scales are those of the source, bit for bit, but for a head that a
matrix stands before: the layout has no place for that matrix, and head and matrix become one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna import _native
from puna.errors import CheckpointError
from puna.models.checkpoint import Checkpoint
from puna.models.config import ModelConfig
from puna.models.meta_folder import EMBEDDING, HEAD, meta_name
from puna.models.new_folder import new_folder
from puna.models.packed import PackedSource, Progress, is_float, write_vocabulary
from puna.models.rotary import interleaved_rows
from puna.models.safetensors import NewTensor
from puna.models.tiktoken_vocabulary import tiktoken_from_tokenizer_json
from puna.models.torch_writer import write_torch

__all__ = ["write_meta_quantized"]

_ROTATION = "model.norm.rotation.weight"
_ROWS_AT_ONCE = 4096  # of a head, as floats
_GROUP = 32
_GROUP_FORMATS, _TABLE_FORMATS, _ADAPTOR_FORMATS = (
    ("int4_group32", "int4_group32_f32"),
    ("int8_channel",),
    ("bf16", "BF16"),
)


def write_meta_quantized(
    checkpoint: Checkpoint,
    out: Path,
    *,
    tokenizer_model: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Write ``consolidated.00.pth`` and ``params.json`` of the official quantized models, all or nothing.

    Embedding and head are written apart, the same table twice where they are one. A matrix between the last
    norm and the head is multiplied into the head, which is rounded to 8 bits a row once more. Norms are
    bfloat16 where that loses nothing, and float32 otherwise. A context other than 8192 tokens is not kept:
    the layout does not say it. One matrix is in memory at a time.

    Args:
        checkpoint: a Puna checkpoint that `puna quantize` or ``puna convert --format int4`` made, or any
            other with matrices in those formats.
        out: the folder to make; it must not exist yet.
        tokenizer_model: the ``tokenizer.model`` to put beside the weights. None: made from the vocabulary
            where that is Llama 3's; a ``tokenizer.json`` where it is not, which ExecuTorch's runner and Puna
            read, and llama-stack does not.
        progress: told of every tensor.

    Raises:
        CheckpointError: what the layout has no place for. A matrix of a block that is not in 4-bit groups of
            32, an embedding or head that is not 8-bit rows, an adaptor that is not bfloat16: quantize the
            model first. A rotation in several blocks: readers of the layout rotate the whole feed-forward
            width. Numbers that ``params.json`` has no key for, see `ModelConfig.to_meta`.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    params = _params(checkpoint)
    if tokenizer_model is not None and not tokenizer_model.is_file():
        raise CheckpointError(f"{tokenizer_model} does not exist; give the tokenizer.model of the model")
    vocabulary = checkpoint.vocabulary()
    tensors = list(_Tensors(checkpoint))
    with new_folder(out, sum(tensor.n_bytes for tensor in tensors)) as folder:
        write_torch(folder / "consolidated.00.pth", _counted(tensors, progress))
        (folder / "params.json").write_text(json.dumps(params) + "\n", encoding="utf-8")
        if tokenizer_model is not None:
            shutil.copyfile(tokenizer_model, folder / "tokenizer.model")
        elif (data := tiktoken_from_tokenizer_json(vocabulary.tokenizer_json)) is not None:
            (folder / "tokenizer.model").write_bytes(data)
        else:
            write_vocabulary(folder, vocabulary)


def _params(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    if config.has_down_rotation and config.rotation_block != config.ffn_dim:
        raise CheckpointError(
            f"{checkpoint.path} rotates its feed-forward width of {config.ffn_dim} in blocks of "
            f"{config.rotation_block}; readers of Meta's layout rotate it whole, which needs a power of two"
        )
    for name, shape in config.tensor_shapes().items():
        if len(shape) == 2 and name != _ROTATION:
            _check_matrix(checkpoint, name, shape[1])
    return _written(config).to_meta(is_quantized=True)


def _written(config: ModelConfig) -> ModelConfig:
    """What is written: with a head of its own where a matrix stands before it."""
    if not config.has_output_rotation:
        return config
    return replace(config, has_output_rotation=False, tied_embeddings=False)


def _check_matrix(checkpoint: Checkpoint, name: str, columns: int) -> None:
    is_table = name in (EMBEDDING, HEAD)
    needed = _ADAPTOR_FORMATS if is_float(name) else _TABLE_FORMATS if is_table else _GROUP_FORMATS
    got = checkpoint.dtypes[name]
    if got not in needed or not (is_float(name) or isinstance(checkpoint, PackedSource)):
        raise CheckpointError(
            f"{checkpoint.path}: {name} needs to be {needed[0]} for Meta's quantized layout, got {got}; make "
            "it with `puna quantize` or `puna convert --format int4`"
        )
    if needed is _GROUP_FORMATS and columns % _GROUP:
        raise CheckpointError(
            f"{checkpoint.path}: {name} needs inputs in whole groups of {_GROUP} for Meta's layout, got "
            f"{columns} inputs"
        )


def _counted(tensors: list[NewTensor], progress: Progress | None) -> Iterator[NewTensor]:
    done = 0

    def counted(produce: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(tensors))
        return produce()

    for tensor in tensors:
        yield NewTensor(
            tensor.name,
            tensor.dtype,
            tensor.shape,
            lambda tensor=tensor: counted(tensor.produce),  # type: ignore[misc]
        )


class _Tensors:
    """The tensors of a checkpoint under Meta's names, each made when it is its turn."""

    def __init__(self, source: Checkpoint) -> None:
        self._source, self._config = source, source.config
        self._unpacked: tuple[str, NDArray[np.int8], NDArray[Any]] | None = None

    def __iter__(self) -> Iterator[NewTensor]:
        """In the order of the forward pass."""
        written = _written(self._config)
        for name, shape in written.tensor_shapes().items():
            if len(shape) == 1:
                yield _norm(self._source, name)
            elif is_float(name):
                yield NewTensor(meta_name(name), "BF16", shape, partial(self._adaptor, name))
            else:
                yield from self._matrix(name, meta_name(name), shape)
        if written.tied_embeddings:
            yield from self._matrix(EMBEDDING, meta_name(HEAD), (self._config.vocab_size, self._config.dim))

    def _matrix(self, name: str, key: str, shape: tuple[int, ...]) -> Iterator[NewTensor]:
        scales = (shape[0], 1 if name in (EMBEDDING, HEAD) else shape[1] // _GROUP)
        yield NewTensor(key, "I8", shape, partial(self._integers, name))
        yield NewTensor(f"{key.removesuffix('.weight')}.scales", "F32", scales, partial(self._scales, name))

    def _integers(self, name: str) -> NDArray[Any]:
        return self._rows(name, self._unpack(name)[0])

    def _scales(self, name: str) -> NDArray[Any]:
        return self._rows(name, self._unpack(name)[1].astype(np.float32))

    def _adaptor(self, name: str) -> NDArray[Any]:
        return self._rows(name, _bf16(self._source.tensor(name).to_float32()))

    def _unpack(self, name: str) -> tuple[NDArray[np.int8], NDArray[Any]]:
        # Integers and scales are asked for one after the other.
        if self._unpacked is None or self._unpacked[0] != name:
            is_folded = name == HEAD and self._config.has_output_rotation
            self._unpacked = (name, *(self._folded_head() if is_folded else self._stored(name)))
        return self._unpacked[1:]

    def _stored(self, name: str) -> tuple[NDArray[np.int8], NDArray[Any]]:
        assert isinstance(self._source, PackedSource), "its matrices were checked"
        found = self._source.packed(name).to_integers()
        assert found is not None, f"{name} is of an integer format"
        return found

    def _folded_head(self) -> tuple[NDArray[np.int8], NDArray[Any]]:
        """The head times the matrix before it, rounded to 8 bits a row."""
        integers, scales = self._stored(EMBEDDING if self._config.tied_embeddings else HEAD)
        rotation = self._source.tensor(_ROTATION).to_float32()
        folded, rounded = np.empty_like(integers), np.empty_like(scales)
        for start in range(0, len(integers), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            values = (integers[rows] * scales[rows]) @ rotation
            folded[rows], rounded[rows, 0] = _native.round_channels(values)
        return folded, rounded

    def _rows(self, name: str, data: NDArray[Any]) -> NDArray[Any]:
        """Rows of q and k in Meta's order, what makes their outputs in an adaptor included."""
        for part, n_heads in (("q_proj", self._config.n_heads), ("k_proj", self._config.n_kv_heads)):
            if name.endswith((f"{part}.weight", f"{part}.lora_B.weight")):
                return interleaved_rows(data.view(np.uint8).reshape(len(data), -1), n_heads)
        return data


def _norm(checkpoint: Checkpoint, name: str) -> NewTensor:
    values = checkpoint.tensor(name).to_float32()
    halves = _bf16(values)
    is_exact = np.array_equal(halves.astype(np.uint32) << 16, values.view(np.uint32))
    stored = halves if is_exact else values
    return NewTensor(meta_name(name), "BF16" if is_exact else "F32", values.shape, lambda: stored)


def _bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves: exact for what is a bfloat16 already."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)
