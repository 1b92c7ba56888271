"""A `Transformer` as a checkpoint, so that whatever takes one takes a model: `ModelCheckpoint`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from puna import _native
from puna.errors import CheckpointError
from puna.models.checkpoint import Tensor as StoredTensor
from puna.models.checkpoint import Vocabulary
from puna.models.packed import PackedMatrix
from puna.nn.checkpoint import weights_of
from puna.nn.fake_quantized import Bf16Linear, Int4Linear, Int8Embedding, Int8Linear
from puna.nn.grid import GridLinear
from puna.nn.model import Transformer
from puna.nn.rounding import round_rows

__all__ = ["ModelCheckpoint", "pack_groups", "pack_rows"]


class ModelCheckpoint:
    """A model in memory; implements `puna.models.checkpoint.Checkpoint` and `PackedSource`.

    `puna.models.packed.write_checkpoint` writes it with the format ``auto``: layers that are fake-quantized
    as the integers that they compute with, the others as they are.

    Attributes:
        path: a name for messages and for the new checkpoint's record of its source.
        kind: ``torch``.
        config: the architecture.
        dtypes: ``int4_group32``, ``int8_channel`` or ``bf16`` where the layer is fake-quantized, else
            ``F32``.
    """

    kind = "torch"

    def __init__(self, model: Transformer, vocabulary: Vocabulary | None = None, name: str = "model") -> None:
        """Look at a model.

        Args:
            model: the model; later changes of its weights show.
            vocabulary: its tokenizer, needed for writing.
            name: what to call it.
        """
        self.path, self.config = Path(name), model.config
        self._weights, self._vocabulary = weights_of(model), vocabulary
        self._modules = dict(model.named_modules())
        self.dtypes = {name: self._dtype(name) for name in self._weights}

    def _module(self, name: str) -> nn.Module:
        module: nn.Module = self._modules[name.removesuffix(".weight")]
        return module

    def _dtype(self, name: str) -> str:
        match self._module(name):
            case Int4Linear():
                return "int4_group32"
            case Int8Linear() | Int8Embedding():
                return "int8_channel"
            case Bf16Linear():
                return "bf16"
        return "F32"

    def tensor(self, name: str) -> StoredTensor:
        """The named parameter as float32, before any rounding."""
        module = self._module(name)
        weight = module.floats() if isinstance(module, GridLinear) else self._weights[name]
        values = weight.detach().float().cpu().contiguous().numpy()
        return StoredTensor(name, "F32", values.shape, values.view(np.uint8))

    def packed(self, name: str) -> PackedMatrix:
        """The named matrix as its fake-quantized layer computes with it."""
        module = self._module(name)
        if isinstance(module, Int4Linear):
            return pack_groups(*module.quantized())
        if isinstance(module, Bf16Linear):
            return _pack_bf16(self._weights[name])
        return pack_rows(*round_rows(self._weights[name].detach()))

    def vocabulary(self) -> Vocabulary:
        """The tokenizer that was given.

        Raises:
            CheckpointError: there was none.
        """
        if self._vocabulary is None:
            raise CheckpointError(f"{self.path} has no vocabulary; give one to `ModelCheckpoint`")
        return self._vocabulary


def pack_groups(q: Tensor, scales: Tensor) -> PackedMatrix:
    """Pack 4-bit integers ``[out, in]`` with scales ``[out, ceil(in / 32)]`` on the grid of float16.

    Raises:
        CheckpointError: a scale is not finite: a weight is not, or is too large for float16.
    """
    _require_finite(scales)
    rows, columns = q.shape
    halves = scales.half().cpu().contiguous().numpy().view(np.uint16)
    data = _native.pack_groups("int4_group32", _int8(q), halves)
    return PackedMatrix("int4_group32", rows, columns, np.asarray(data))


def pack_rows(q: Tensor, scales: Tensor) -> PackedMatrix:
    """Pack 8-bit integers ``[out, in]`` with scales ``[out, 1]``.

    Raises:
        CheckpointError: a scale is not finite, as a weight is not.
    """
    _require_finite(scales)
    rows, columns = q.shape
    data = _native.pack_channels(_int8(q), scales.flatten().float().cpu().contiguous().numpy())
    return PackedMatrix("int8_channel", rows, columns, np.asarray(data))


def _pack_bf16(weight: Tensor) -> PackedMatrix:
    values = weight.detach().float().cpu().contiguous().numpy()
    return PackedMatrix(
        "bf16", values.shape[0], values.shape[1], np.asarray(_native.pack_values("bf16", values))
    )


def _require_finite(scales: Tensor) -> None:
    wrong = (~scales.isfinite()).nonzero()
    if len(wrong):
        raise CheckpointError(
            f"row {int(wrong[0, 0])} of a matrix cannot be quantized: a weight is not finite, or too large "
            "for its scale"
        )


def _int8(q: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
    values: np.ndarray[tuple[int, ...], np.dtype[np.int8]] = q.to(torch.int8).cpu().contiguous().numpy()
    return values
