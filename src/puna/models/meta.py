"""Reading a Llama as Meta publishes it: a folder with ``params.json`` and ``consolidated.00.pth``, ...

Large models come in several files, one for each processor of Meta's own program: every file has a
piece of every matrix, cut by rows or by columns. A tensor is put together when it is asked for, so
that one is in memory at a time. Names and the order of rows of q and k are translated here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.models.checkpoint import Tensor, Vocabulary, check_shapes
from puna.models.config import ModelConfig
from puna.models.meta_folder import (
    EMBEDDING,
    HEAD,
    huggingface_name,
    open_files,
    read_meta_vocabulary,
    read_params,
)
from puna.models.rotary import half_split_rows
from puna.models.torch_file import TorchEntry, TorchFile

__all__ = ["MetaCheckpoint", "are_equal"]

_IGNORED = "rope.freqs"  # a rotary table; it follows from the config
# Matrices that take a part of their input in each file; the others make a part of their output.
_BY_COLUMNS = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
_DTYPES = ("F32", "F16", "BF16")
_COMPARED_BYTES = 1 << 20


class MetaCheckpoint:
    """A Llama in Meta's own layout; implements `puna.models.checkpoint.Checkpoint`.

    Attributes:
        path: the folder.
        kind: ``Meta``.
        config: the architecture.
        dtypes: storage of every tensor by its Hugging Face name, in the order of the forward pass.
    """

    kind = "Meta"

    def __init__(self, path: Path) -> None:
        """Open a folder and check that it holds one whole Llama.

        Args:
            path: a folder with ``params.json`` and ``consolidated.00.pth``, ``consolidated.01.pth``, ...

        Raises:
            CheckpointError: a file is missing or damaged, the model is quantized (for which see
                `puna.models.meta_quantized`), has vision or is not a Llama, or a tensor is missing, unknown,
                or of the wrong shape or type.
        """
        self.path = path
        params = read_params(path)
        self._files = open_files(path)
        names = [name for name in self._files[0].entries if name != _IGNORED]
        if any(name.endswith(".scales") for name in names):
            raise CheckpointError(
                f"{path} holds integers with scales, but its params.json has no `quantization_args`; take "
                "the params.json that belongs to the weights"
            )
        self._sources = {huggingface_name(name): name for name in names}
        self._check_file_count(params.get("dim"))
        shapes = self._whole_shapes(params.get("dim"))
        if len(shapes.get(EMBEDDING, ())) != 2:
            raise CheckpointError(f"{path} needs a matrix `tok_embeddings.weight`, it has none")
        is_tied = self._drop_head_that_is_a_copy()
        self.config = ModelConfig.from_meta(params, vocab_size=shapes[EMBEDDING][0], tied_embeddings=is_tied)
        check_shapes(str(path), self.config, {name: shapes[name] for name in self._sources})
        self.dtypes = {name: self._piece(name).dtype for name in self.config.tensor_shapes()}

    def tensor(self, name: str) -> Tensor:
        """The named tensor; a view into the file where there is one file, q and k apart.

        Raises:
            CheckpointError: there is no tensor of that name.
        """
        if name not in self._sources:
            raise CheckpointError(f"{self.path} has no tensor {name!r}")
        piece, shape = self._piece(name), self.config.tensor_shapes()[name]
        if len(shape) == 1:
            return Tensor(name, piece.dtype, shape, self._files[0].data(self._sources[name]))
        pieces = [file.data(self._sources[name]).reshape(piece.shape[0], -1) for file in self._files]
        data = pieces[0]
        if len(pieces) > 1:
            data = np.concatenate(pieces, axis=_cut_axis(name, piece.shape, self.config.dim))
            data.flags.writeable = False
        if name.endswith("self_attn.q_proj.weight"):
            data = half_split_rows(data, self.config.n_heads)
        elif name.endswith("self_attn.k_proj.weight"):
            data = half_split_rows(data, self.config.n_kv_heads)
        return Tensor(name, piece.dtype, shape, data)

    def vocabulary(self) -> Vocabulary:
        """The tokenizer of ``tokenizer.model``, in the folder or (as Llama 2 was laid out) the one above.

        Raises:
            CheckpointError: there is no such file, it is damaged, or has more tokens than the embedding.
        """
        return read_meta_vocabulary(self.path, self.config.vocab_size)

    def _piece(self, name: str) -> TorchEntry:
        """What the first file has of a tensor; the others have the same, see `_whole_shapes`."""
        return self._files[0].entries[self._sources[name]]

    def _whole_shapes(self, dim: object) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors put together, after a check that the files have equal pieces of each."""
        first = self._files[0]
        for file in self._files[1:]:
            differing = sorted(file.entries.keys() ^ first.entries.keys())
            if differing:
                raise CheckpointError(
                    f"{file.path} and {first.path.name} must have the same tensors, {differing[0]!r:.100} is "
                    "in one of them only"
                )
        shapes = {}
        for name, source in self._sources.items():
            for file in self._files:
                _check_piece(file, source, first.entries[source])
            shape = list(first.entries[source].shape)
            if len(shape) == 2:
                shape[_cut_axis(name, first.entries[source].shape, dim)] *= len(self._files)
            shapes[name] = tuple(shape)
        return shapes

    def _check_file_count(self, dim: object) -> None:
        """Say it in plain words where whole files are missing, before any size seems wrong."""
        name = "model.layers.0.self_attn.q_proj.weight"
        if name not in self._sources:
            return
        # All of the queries are a square matrix.
        match self._piece(name).shape:
            case (rows, columns) if rows and columns == dim and columns % rows == 0:
                needed = columns // rows
                if needed != len(self._files):
                    raise CheckpointError(
                        f"{self.path} needs {needed} files consolidated.*.pth, got {len(self._files)}; the "
                        "download may be incomplete"
                    )

    def _drop_head_that_is_a_copy(self) -> bool:
        """Whether embedding and head are one; 3.2's files have the small models' shared matrix twice."""
        if HEAD not in self._sources:
            return True
        head, embedding = self._piece(HEAD), self._piece(EMBEDDING)
        if (head.dtype, head.shape) != (embedding.dtype, embedding.shape) or not all(
            are_equal(file.data(self._sources[HEAD]), file.data(self._sources[EMBEDDING]))
            for file in self._files
        ):
            return False
        del self._sources[HEAD]
        return True


def _check_piece(file: TorchFile, source: str, first: TorchEntry) -> None:
    entry = file.entries[source]
    if entry.dtype not in _DTYPES:
        raise CheckpointError(
            f"{file.path}: tensor {source!r:.100} must be stored as {', '.join(_DTYPES)}, got {entry.dtype}"
        )
    if (entry.dtype, entry.shape) != (first.dtype, first.shape):
        raise CheckpointError(
            f"{file.path}: tensor {source!r:.100} needs {first.dtype} of shape {first.shape} as in the first "
            f"file, got {entry.dtype} of shape {entry.shape}"
        )


def _cut_axis(name: str, piece: tuple[int, ...], dim: object) -> int:
    """Along which axis the pieces of a matrix follow each other: 0 rows, 1 columns."""
    # Llama 2 cuts the embedding by columns, Llama 3 by rows (tokens).
    by_columns = name.endswith(_BY_COLUMNS) or (name == EMBEDDING and piece[1] != dim)
    return 1 if by_columns else 0


def are_equal(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Whether two tensors have the same bytes; reads no further than the first difference."""
    starts = range(0, a.size, _COMPARED_BYTES)
    return all(np.array_equal(a[i : i + _COMPARED_BYTES], b[i : i + _COMPARED_BYTES]) for i in starts)
