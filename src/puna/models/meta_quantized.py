"""Reading the official quantized models of Llama 3.2: ``...-SpinQuant_INT4_EO8`` and ``...-QLORA_INT4_EO8``.

One ``consolidated.00.pth`` and a ``params.json`` that says ``quantization_args``. Every weight is an int8:

====================================  ==========================  =====================================
tensor                                stored as                   becomes
====================================  ==========================  =====================================
the linear layers of a block          -8 to 7, float32            ``int4_group32_f32``
                                      ``scales [out, in / 32]``
``tok_embeddings``, ``output``        -128 to 127, float32        ``int8_channel``, one matrix where the
                                      ``scales [rows, 1]``        two are the same
``<linear>.adaptor.A``, ``.B``        bfloat16                    ``bf16``
norms                                 bfloat16 or float32         float32
====================================  ==========================  =====================================

Nothing is rounded. Rows of q and k, and their scales, are brought into Hugging Face's order.

Source: meta-llama/llama-stack v0.1.4, llama_stack/providers/inline/inference/meta_reference/quantization and
pytorch/executorch, examples/models/llama/source_transformation/pre_quantization.py. The published files are
gated: the layout was not checked against them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna import _native
from puna.errors import CheckpointError
from puna.models.checkpoint import Tensor, Vocabulary
from puna.models.config import ModelConfig
from puna.models.meta import are_equal
from puna.models.meta_folder import EMBEDDING, HEAD, meta_name, open_files, read_meta_vocabulary, read_params
from puna.models.packed import PackedMatrix, is_float
from puna.models.rotary import half_split_rows

__all__ = ["MetaQuantizedCheckpoint"]

_GROUP = 32
_FLOATS = ("BF16", "F32", "F16")
_IGNORED = "rope.freqs"  # a rotary table; it follows from the config


class MetaQuantizedCheckpoint:
    """An official quantized model; implements `Checkpoint` and `puna.models.packed.PackedSource`.

    Attributes:
        path: the folder.
        kind: ``Meta quantized``.
        config: the architecture, with the rotation or the adaptors that the settings name.
        dtypes: ``int4_group32_f32`` and ``int8_channel``, and the storage of norms and adaptors.
    """

    kind = "Meta quantized"

    def __init__(self, path: Path) -> None:
        """Open a folder and check that it holds one whole model.

        Args:
            path: a folder with ``params.json`` and one ``consolidated.00.pth``.

        Raises:
            CheckpointError: a file is missing or damaged, the scheme is another, or a tensor is missing,
                unknown, or of the wrong shape or type.
        """
        self.path = path
        params = read_params(path)
        files = open_files(path)
        if len(files) > 1:
            raise CheckpointError(
                f"{path} needs one consolidated.00.pth, as the quantized models have, got {len(files)} files"
            )
        self._file = files[0]
        shape = self._shape("tok_embeddings.weight")
        if len(shape) != 2:
            raise CheckpointError(f"{path} needs a matrix `tok_embeddings.weight`, got shape {shape}")
        config = ModelConfig.from_meta(params, vocab_size=shape[0], tied_embeddings=False)
        self._check(config)
        self.config = ModelConfig.from_meta(
            params, vocab_size=shape[0], tied_embeddings=self._has_one_table()
        )
        self._shapes = self.config.tensor_shapes()
        self.dtypes = {name: self._dtype(name) for name in self._shapes}

    def packed(self, name: str) -> PackedMatrix:
        """The named matrix of integers, these and its scales as they are in the file.

        Raises:
            CheckpointError: an integer is not one of 4 bits, a scale is not finite, or an unused zero point
                is not zero.
        """
        stem, (rows, columns) = self._stem(name), self._shapes[name]
        self._check_zeros(stem)
        q = self._rows(name, self._file.data(f"{stem}.weight").reshape(rows, columns)).view(np.int8)
        scales = self._rows(name, self._file.data(f"{stem}.scales").reshape(rows, -1)).view(np.float32)
        scales = np.require(scales, requirements="A")  # a file may put them at any byte
        if not np.isfinite(scales).all():
            raise CheckpointError(f"{self._file.path}: `{stem}.scales` has a number that is not finite")
        try:
            if self.dtypes[name] == "int8_channel":
                return PackedMatrix("int8_channel", rows, columns, _native.pack_channels(q, scales[:, 0]))
            return PackedMatrix("int4_group32_f32", rows, columns, _native.pack_groups_f32(q, scales))
        except _native.NativeError as error:
            raise CheckpointError(f"{self._file.path}: `{stem}.weight`: {error}") from error

    def tensor(self, name: str) -> Tensor:
        """The named tensor: norms and adaptors as they are stored, integers as float32, dequantized.

        Raises:
            CheckpointError: there is no tensor of that name, or it is damaged.
        """
        shape = self._shapes.get(name)
        if shape is None:
            raise CheckpointError(f"{self.path} has no tensor {name!r}")
        if len(shape) == 2 and not is_float(name):
            return Tensor(name, "F32", shape, self.packed(name).to_float32().view(np.uint8))
        data = self._rows(name, self._file.data(f"{self._stem(name)}.weight").reshape(shape[0], -1))
        return Tensor(name, self._stored(name), shape, data.reshape(-1) if len(shape) == 1 else data)

    def vocabulary(self) -> Vocabulary:
        """The tokenizer, see `puna.models.meta_folder.read_meta_vocabulary`.

        Raises:
            CheckpointError: there is none, it is damaged, or has more tokens than the embedding.
        """
        return read_meta_vocabulary(self.path, self.config.vocab_size)

    def _stem(self, name: str) -> str:
        return meta_name(name).removesuffix(".weight")

    def _stored(self, name: str) -> str:
        return self._file.entries[f"{self._stem(name)}.weight"].dtype

    def _dtype(self, name: str) -> str:
        if len(self._shapes[name]) == 1 or is_float(name):
            return self._stored(name)
        return "int8_channel" if name in (EMBEDDING, HEAD) else "int4_group32_f32"

    def _rows(self, name: str, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Rows in Hugging Face's order, ``[rows, bytes]``; those of B make the outputs of q and k too."""
        for part, n_heads in (("q_proj", self.config.n_heads), ("k_proj", self.config.n_kv_heads)):
            if name.endswith((f"{part}.weight", f"{part}.lora_B.weight")):
                return half_split_rows(data, n_heads)
        return data

    def _shape(self, key: str) -> tuple[int, ...]:
        entry = self._file.entries.get(key)
        if entry is None:
            raise CheckpointError(f"{self._file.path} has no tensor `{key}`; the download may be incomplete")
        return entry.shape

    def _check(self, config: ModelConfig) -> None:
        """Insist on exactly the tensors that the config calls for, each of its shape and type."""
        expected: set[str] = {_IGNORED}
        for name, shape in config.tensor_shapes().items():
            stem = self._stem(name)
            is_integer = len(shape) == 2 and not is_float(name)
            expected |= {f"{stem}.weight", *((f"{stem}.scales", f"{stem}.zeros") if is_integer else ())}
            self._check_tensor(f"{stem}.weight", (shape,), ("I8",) if is_integer else _FLOATS)
            if not is_integer:
                continue
            if name in (EMBEDDING, HEAD):
                scales: tuple[tuple[int, ...], ...] = ((shape[0], 1), (shape[0],))
            elif shape[1] % _GROUP:
                raise CheckpointError(
                    f"{self.path}: `{stem}` needs inputs in groups of {_GROUP}, got {shape[1]} inputs"
                )
            else:
                scales = ((shape[0], shape[1] // _GROUP),)
            self._check_tensor(f"{stem}.scales", scales, ("F32",))
        extra = sorted(self._file.entries.keys() - expected)
        if extra:
            raise CheckpointError(
                f"{self._file.path}: {len(extra)} tensors belong to no part of this model, the first is "
                f"{extra[0]!r:.100}"
            )

    def _check_tensor(self, key: str, shapes: tuple[tuple[int, ...], ...], dtypes: tuple[str, ...]) -> None:
        shape = self._shape(key)
        dtype = self._file.entries[key].dtype
        if shape not in shapes or dtype not in dtypes:
            raise CheckpointError(
                f"{self._file.path}: tensor `{key}` needs {' or '.join(dtypes)} of shape "
                f"{' or '.join(map(str, shapes))}, got {dtype} of shape {shape}"
            )

    def _check_zeros(self, stem: str) -> None:
        # The loaders of these models make zero points themselves; a file may have them, and only as zeros.
        if f"{stem}.zeros" in self._file.entries and self._file.data(f"{stem}.zeros").any():
            raise CheckpointError(
                f"{self._file.path}: `{stem}.zeros` must be zero throughout; this scheme has no zero points"
            )

    def _has_one_table(self) -> bool:
        """Whether embedding and head are one; the files always have both."""
        return all(
            are_equal(self._file.data(f"tok_embeddings.{part}"), self._file.data(f"output.{part}"))
            for part in ("weight", "scales")
        )
