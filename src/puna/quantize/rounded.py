"""What is written in the end: checkpoints whose matrices are rounded when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from puna.errors import CheckpointError
from puna.models.checkpoint import Checkpoint, Vocabulary
from puna.models.checkpoint import Tensor as StoredTensor
from puna.models.packed import PackedMatrix, is_float
from puna.nn.packed import pack_groups, pack_rows
from puna.nn.rounding import group_scales, round_groups, round_rows
from puna.quantize.finished_layers import FinishedLayers
from puna.quantize.layers import Solution

__all__ = ["EMBEDDING", "RoundedCheckpoint", "SolvedCheckpoint"]

EMBEDDING = "model.embed_tokens.weight"
_TABLES = (EMBEDDING, "lm_head.weight")


class RoundedCheckpoint:
    """A checkpoint of rounding to nearest; a `puna.models.packed.PackedSource`."""

    def __init__(self, source: Checkpoint, rule: str = "") -> None:
        """Look at a checkpoint; see `puna.nn.rounding.RULES` for the rule."""
        self._source, self._rule = source, rule
        self.path, self.kind, self.config = source.path, source.kind, source.config
        self.dtypes = {
            name: "F32" if len(shape) == 1 else _target(name)
            for name, shape in source.config.tensor_shapes().items()
        }

    def tensor(self, name: str) -> StoredTensor:
        """What is not rounded, as it is."""
        return self._source.tensor(name)

    def vocabulary(self) -> Vocabulary:
        """The source's."""
        return self._source.vocabulary()

    def packed(self, name: str) -> PackedMatrix:
        """The named matrix, rounded.

        Raises:
            CheckpointError: a weight is not finite, or too large.
        """
        try:
            if name in _TABLES:
                return pack_rows(*round_rows(torch.from_numpy(self._source.tensor(name).to_float32())))
            return pack_groups(*self._groups(name))
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {name}: {error}") from error

    def _groups(self, name: str) -> Solution:
        weight = torch.from_numpy(self._source.tensor(name).to_float32())
        scales = group_scales(weight, self._rule)
        return round_groups(weight, scales), scales


class SolvedCheckpoint(RoundedCheckpoint):
    """The same with the matrices of the blocks from the files of finished layers."""

    def __init__(self, source: Checkpoint, layers: FinishedLayers, growths: Mapping[str, Tensor]) -> None:
        """Look at a checkpoint and what was made of it.

        Args:
            source: the checkpoint, rotated where that was rounded.
            layers: all of them.
            growths: what `puna.quantize.distill` learned, by name; empty where it did not.
        """
        super().__init__(source)
        self._layers, self._growths = layers, growths

    def tensor(self, name: str) -> StoredTensor:
        """What is not rounded, grown by what was learned."""
        # What comes out of the last norm has passed the matrix behind it.
        is_behind = name == "model.norm.rotation.weight"
        growth = self._growths.get("model.norm.weight" if is_behind else name)
        if growth is None or (name == "model.norm.weight" and self.config.has_output_rotation):
            return super().tensor(name)
        values = torch.from_numpy(super().tensor(name).to_float32())
        grown = (values * (1 + growth[:, None] if is_behind else 1 + growth)).contiguous().numpy()
        return StoredTensor(name, "F32", grown.shape, grown.view(np.uint8))

    def _groups(self, name: str) -> Solution:
        _, _, index, part = name.removesuffix(".weight").split(".", 3)
        q, scales = self._layers.read(int(index), part)
        growth = self._growths.get(name)
        return q, scales if growth is None else scales * (1 + growth)


def _target(name: str) -> str:
    # What is not the name of a packed format is packed from its floats.
    return "BF16" if is_float(name) else "int8_channel" if name in _TABLES else "int4_group32"
