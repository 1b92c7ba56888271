"""Weights in the native engine's packed layouts, in memory and on disk.

A Puna checkpoint is a folder in Hugging Face's layout whose ``model.safetensors`` holds packed bytes;
``config.json`` says so under ``puna``. Loading it is a memory map. The layouts themselves are defined in
one place, ``csrc/model/layout.h``.

Start at `weight_format` (which tensor gets which format), then `pack_checkpoint` and `write_checkpoint`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from puna import _native
from puna.errors import CheckpointError, ConfigError, nearest
from puna.models.checkpoint import Checkpoint, Tensor, Vocabulary, check_names
from puna.models.config import ModelConfig
from puna.models.files import read_json_object
from puna.models.huggingface import read_config, read_vocabulary
from puna.models.new_folder import new_folder
from puna.models.safetensors import NewTensor, SafetensorsFile, write_safetensors

__all__ = [
    "FORMATS",
    "PACKED_FORMATS",
    "PackedAs",
    "PackedMatrix",
    "PackedModel",
    "PackedSource",
    "PunaCheckpoint",
    "is_float",
    "pack_checkpoint",
    "weight_format",
    "write_checkpoint",
    "write_json",
    "write_vocabulary",
]

FORMATS = ("auto", "f32", "bf16", "int8", "int4")
"""What a user may ask for; `weight_format` says what each means for a tensor."""

PACKED_FORMATS = ("f32", "bf16", "int8_channel", "int8_group32", "int4_group32", "int4_group32_f32")
"""Those that the engine multiplies with, see ``csrc/model/layout.h``."""

_LAYOUT = 1  # of csrc/model/layout.h; a file of another number is refused
_FORMATS_KEY = "puna.formats"

Progress = Callable[[int, int], None]
"""Called with the number of tensors done and in all."""


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A matrix in one of the engine's layouts.

    Attributes:
        format: one of `PACKED_FORMATS`.
        rows: outputs.
        columns: inputs.
        data: the packed bytes, ``[bytes]``, uint8.
    """

    format: str
    rows: int
    columns: int
    data: NDArray[np.uint8]

    def to_float32(self) -> NDArray[np.float32]:
        """The values that the engine computes with, ``[rows, columns]``."""
        return np.asarray(_native.unpack(self.format, self.data, self.rows, self.columns))

    def to_integers(self) -> tuple[NDArray[np.int8], NDArray[Any]] | None:
        """What an integer format holds, without any loss; None for the others.

        Returns:
            Integers ``[rows, columns]`` and their scales: float16 ``[rows, ceil(columns / 32)]``, or float32
            ``[rows, 1]`` for ``int8_channel`` and ``[rows, ceil(columns / 32)]`` for ``int4_group32_f32``.
        """
        if self.format == "int8_channel":
            integers, scales = _native.unpack_channels(self.data, self.rows, self.columns)
            return integers, np.asarray(scales)[:, None]
        if self.format == "int4_group32_f32":
            return _native.unpack_groups_f32(self.data, self.rows, self.columns)
        if self.format in ("int4_group32", "int8_group32"):
            integers, bits = _native.unpack_groups(self.format, self.data, self.rows, self.columns)
            return integers, np.asarray(bits).view(np.float16)
        return None


@dataclass(frozen=True, slots=True)
class PackedModel:
    """All weights of a model, ready for the engine.

    Attributes:
        config: the architecture.
        matrices: packed matrices by Hugging Face name.
        norms: float32 ``[dim]`` by Hugging Face name.
    """

    config: ModelConfig
    matrices: dict[str, PackedMatrix]
    norms: dict[str, NDArray[np.float32]]

    @property
    def n_bytes(self) -> int:
        """Bytes of all weights."""
        matrices = sum(matrix.data.nbytes for matrix in self.matrices.values())
        return matrices + sum(norm.nbytes for norm in self.norms.values())

    @property
    def n_bytes_per_token(self) -> int:
        """Bytes of the weights that one token needs: all, but of an embedding that is no head one row."""
        table = self.matrices["model.embed_tokens.weight"]
        if self.config.tied_embeddings:
            return self.n_bytes
        return self.n_bytes - table.data.nbytes + table.data.nbytes // table.rows


def weight_format(name: str, dtype: str, wanted: str) -> str:
    """Which packed format a tensor gets.

    Args:
        name: Hugging Face name of a matrix.
        dtype: its storage in the checkpoint, ``BF16``, ``Q4_0``, or a packed format of a Puna checkpoint.
        wanted: one of `FORMATS`. ``auto`` keeps what the file has where the engine has it (F32, BF16,
            Q8_0 and Q4_0 without loss, F16 as bf16) and takes int8 in groups of 32 for every other
            integer type. ``int8`` is groups of 32 throughout. ``int4`` is the scheme of the Llama 3.2
            quantized models: groups of 32 in the blocks, int8 a row for embedding and head. Adaptors and
            the matrix before the head are never integers: where others become those, they are bf16. What is
            4-bit with float32 scales already, as in Meta's files, is kept.

    Returns:
        A format of `PackedMatrix`.

    Raises:
        ConfigError: `wanted` is not one of `FORMATS`.
    """
    if wanted not in FORMATS:
        raise ConfigError(f"format {wanted!r} is unknown; {nearest(wanted, FORMATS)}")
    if wanted == "auto":
        kept = {"F32": "f32", "BF16": "bf16", "F16": "bf16", "Q4_0": "int4_group32"}
        return (
            dtype
            if dtype in PACKED_FORMATS
            else kept.get(dtype, "bf16" if is_float(name) else "int8_group32")
        )
    if is_float(name):
        return "f32" if wanted == "f32" else "bf16"
    if wanted == "int4":
        is_table = name in ("model.embed_tokens.weight", "lm_head.weight")
        if is_table:
            return "int8_channel"
        return dtype if dtype == "int4_group32_f32" else "int4_group32"
    return "int8_group32" if wanted == "int8" else wanted


def is_float(name: str) -> bool:
    """Whether a matrix is one of the small ones that are never quantized.

    Args:
        name: its Hugging Face name: of an adaptor, ``...lora_A.weight``, or of the matrix before the head.
    """
    return name.endswith((".lora_A.weight", ".lora_B.weight", ".norm.rotation.weight"))


def pack_checkpoint(
    checkpoint: Checkpoint, wanted: str = "auto", progress: Progress | None = None
) -> PackedModel:
    """Bring a checkpoint into the engine's layouts.

    A Puna checkpoint in the wanted format is mapped, not read; everything else is packed in memory,
    tensor by tensor.

    Args:
        checkpoint: an open checkpoint.
        wanted: one of `FORMATS`.
        progress: told of every tensor.

    Raises:
        CheckpointError: a tensor is damaged or cannot be quantized.
        ConfigError: `wanted` is unknown.
    """
    shapes = checkpoint.config.tensor_shapes()
    matrices: dict[str, PackedMatrix] = {}
    norms: dict[str, NDArray[np.float32]] = {}
    for done, (name, shape) in enumerate(shapes.items(), start=1):
        if len(shape) == 1:
            norms[name] = checkpoint.tensor(name).to_float32()
        else:
            matrices[name] = _pack_matrix(checkpoint, name, wanted)
        if progress is not None:
            progress(done, len(shapes))
    return PackedModel(checkpoint.config, matrices, norms)


def _pack_matrix(checkpoint: Checkpoint, name: str, wanted: str) -> PackedMatrix:
    target = weight_format(name, checkpoint.dtypes[name], wanted)
    if isinstance(checkpoint, PackedSource) and checkpoint.dtypes[name] == target:
        return checkpoint.packed(name)
    tensor = checkpoint.tensor(name)
    rows, columns = tensor.shape
    try:
        return PackedMatrix(target, rows, columns, np.asarray(_pack(tensor, target)))
    except _native.NativeError as error:
        raise CheckpointError(f"{checkpoint.path}: tensor {name!r:.100}: {error}") from error


def _pack(tensor: Tensor, target: str) -> NDArray[np.uint8]:
    if target in ("f32", "bf16"):
        return _native.pack_values(target, tensor.to_float32())
    if target == "int8_channel":
        return _native.pack_channels(*_native.round_channels(tensor.to_float32()))
    bits = 4 if target == "int4_group32" else 8
    exact = tensor.to_groups()
    is_lossless = exact is not None and tensor.dtype == ("Q4_0" if bits == 4 else "Q8_0")
    if exact is not None and is_lossless:
        integers, scales = exact
        return _native.pack_groups(target, integers, scales.view(np.uint16))
    return _native.pack_groups(target, *_native.round_groups(bits, tensor.to_float32()))


@runtime_checkable
class PackedSource(Protocol):
    """A checkpoint that has matrices in the engine's layouts already."""

    def packed(self, name: str) -> PackedMatrix:
        """The named matrix, in the format that `Checkpoint.dtypes` says."""
        ...


class PackedAs:
    """Another checkpoint as it would be packed, matrix by matrix; implements `Checkpoint` and `PackedSource`.

    Attributes:
        path: that of the source.
        kind: that of the source.
        config: that of the source.
        dtypes: packed format of every matrix, ``F32`` for norms.
    """

    def __init__(self, source: Checkpoint, wanted: str) -> None:
        """Pack nothing yet.

        Args:
            source: where matrices come from.
            wanted: one of `FORMATS`.

        Raises:
            ConfigError: `wanted` is unknown.
        """
        self.path, self.kind, self.config = source.path, source.kind, source.config
        self._source, self._wanted = source, wanted
        formats = _wanted_formats(source, wanted)
        self.dtypes = {name: formats.get(name, "F32") for name in source.config.tensor_shapes()}

    def packed(self, name: str) -> PackedMatrix:
        """The named matrix, packed anew at every call."""
        return _pack_matrix(self._source, name, self._wanted)

    def tensor(self, name: str) -> Tensor:
        """The named tensor as float32, as the engine would compute with it."""
        shape = self.config.tensor_shapes()[name]
        values = self._source.tensor(name) if len(shape) == 1 else self.packed(name)
        return Tensor(name, "F32", shape, values.to_float32().view(np.uint8))

    def vocabulary(self) -> Vocabulary:
        """The source's."""
        return self._source.vocabulary()


class PunaCheckpoint:
    """A folder of packed weights, mapped read-only; implements `Checkpoint`.

    Attributes:
        path: the folder.
        kind: ``Puna``.
        config: the architecture.
        dtypes: packed format of every matrix, ``F32`` for norms.
    """

    kind = "Puna"

    def __init__(self, path: Path) -> None:
        """Map the folder's weights.

        Args:
            path: a folder that `write_checkpoint` made.

        Raises:
            CheckpointError: a file is missing or damaged, or the layout is not this version's.
        """
        self.path = path
        settings = read_json_object(path / "config.json").get("puna")
        layout = settings.get("layout") if isinstance(settings, dict) else None
        if layout != _LAYOUT:
            raise CheckpointError(
                f"{path}: packed with layout {layout!r:.50}, this version reads layout {_LAYOUT}; "
                "convert the original model again with `puna convert`"
            )
        self.config = read_config(path)
        self._shapes = self.config.tensor_shapes()
        self._file = SafetensorsFile(path / "model.safetensors")
        check_names(str(self._file.path), self.config, self._file.entries)
        formats = _formats(self._file)
        self.dtypes = {
            name: "F32" if len(shape) == 1 else formats.get(name, "") for name, shape in self._shapes.items()
        }
        for name in self.dtypes:
            self._check_size(name)

    def _check_size(self, name: str) -> None:
        shape, found = self._shapes[name], self._file.data(name).nbytes
        try:
            needed = 4 * shape[0] if len(shape) == 1 else _native.packed_bytes(self.dtypes[name], *shape)
        except _native.NativeError as error:
            raise CheckpointError(f"{self._file.path}: tensor {name!r:.100}: {error}") from error
        if found != needed:
            raise CheckpointError(
                f"{self._file.path}: tensor {name!r:.100} needs {needed} bytes as {self.dtypes[name]}, "
                f"got {found}"
            )

    def packed(self, name: str) -> PackedMatrix:
        """The named matrix, a view into the mapped file."""
        rows, columns = self._shapes[name]
        return PackedMatrix(self.dtypes[name], rows, columns, self._file.data(name))

    def tensor(self, name: str) -> Tensor:
        """The named tensor as float32, unpacked."""
        shape = self._shapes[name]
        if len(shape) == 1:
            return Tensor(name, "F32", shape, self._file.data(name))
        return Tensor(name, "F32", shape, self.packed(name).to_float32().view(np.uint8))

    def vocabulary(self) -> Vocabulary:
        """The tokenizer and its special tokens."""
        return read_vocabulary(self.path, self.config.vocab_size)


def _formats(file: SafetensorsFile) -> dict[str, str]:
    try:
        formats = json.loads(file.metadata.get(_FORMATS_KEY, ""))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.path}: the header has no readable `{_FORMATS_KEY}`") from error
    if not isinstance(formats, dict) or not all(isinstance(value, str) for value in formats.values()):
        raise CheckpointError(f"{file.path}: `{_FORMATS_KEY}` must map tensor names to formats")
    return formats


def write_checkpoint(
    checkpoint: Checkpoint, out: Path, wanted: str, progress: Progress | None = None
) -> None:
    """Write a Puna checkpoint, all of it or nothing.

    One tensor is in memory at a time.

    Args:
        checkpoint: the source.
        out: the folder to make; it must not exist yet.
        wanted: one of `FORMATS`.
        progress: told of every tensor.

    Raises:
        StoreError: `out` exists, or cannot be written.
        CheckpointError: the source is damaged or cannot be quantized.
        ConfigError: `wanted` is unknown.
    """
    vocabulary = checkpoint.vocabulary()
    with new_folder(out, _packed_bytes(checkpoint, wanted)) as folder:
        _write_weights(checkpoint, folder / "model.safetensors", wanted, progress)
        write_json(folder / "config.json", _config_json(checkpoint, vocabulary, wanted))
        write_vocabulary(folder, vocabulary)


def _packed_bytes(checkpoint: Checkpoint, wanted: str) -> int:
    shapes, formats = checkpoint.config.tensor_shapes(), _wanted_formats(checkpoint, wanted)
    return sum(
        _native.packed_bytes(formats[name], *shape) if name in formats else 4 * shape[0]
        for name, shape in shapes.items()
    )


def _wanted_formats(checkpoint: Checkpoint, wanted: str) -> dict[str, str]:
    """The packed format of each matrix."""
    matrices = [name for name, shape in checkpoint.config.tensor_shapes().items() if len(shape) == 2]
    return {name: weight_format(name, checkpoint.dtypes[name], wanted) for name in matrices}


def _write_weights(checkpoint: Checkpoint, path: Path, wanted: str, progress: Progress | None) -> None:
    shapes, formats = checkpoint.config.tensor_shapes(), _wanted_formats(checkpoint, wanted)
    # Norms last: their sizes are no multiples of 64, and every matrix is to begin at one.
    order = [*formats] + [name for name in shapes if name not in formats]
    done = 0

    def produce(name: str) -> NDArray[Any]:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(order))
        if name in formats:
            return _pack_matrix(checkpoint, name, wanted).data
        norm = checkpoint.tensor(name).to_float32()
        if not np.isfinite(norm).all():
            raise CheckpointError(f"{checkpoint.path}: {name!r:.100} has a weight that is not finite")
        return norm

    tensors = [
        NewTensor(
            name,
            "U8" if name in formats else "F32",
            (_native.packed_bytes(formats[name], *shapes[name]),) if name in formats else shapes[name],
            lambda name=name: produce(name),  # type: ignore[misc]
        )
        for name in order
    ]
    write_safetensors(path, tensors, {_FORMATS_KEY: json.dumps(formats)})


def _config_json(checkpoint: Checkpoint, vocabulary: Vocabulary, wanted: str) -> dict[str, Any]:
    source = {"kind": checkpoint.kind, "name": checkpoint.path.name}
    raw = checkpoint.config.to_puna()
    raw["bos_token_id"] = vocabulary.bos_id
    raw["puna"] = {"layout": _LAYOUT, "format": wanted, "source": source}
    return raw


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Write a vocabulary as Hugging Face's files, so that `read_vocabulary` gives it back.

    Args:
        folder: gets ``tokenizer.json``, ``tokenizer_config.json`` and ``generation_config.json``.
        vocabulary: what to write.
    """
    (folder / "tokenizer.json").write_bytes(vocabulary.tokenizer_json.to_bytes())
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": vocabulary.add_bos,
        **vocabulary.special_tokens,
    }
    if vocabulary.chat_template is not None:
        settings["chat_template"] = vocabulary.chat_template
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "generation_config.json", {"eos_token_id": list(vocabulary.eos_ids)})


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object as a config file is written."""
    # Escaped, as a template or a token may hold half a surrogate pair, which UTF-8 has no bytes for.
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
