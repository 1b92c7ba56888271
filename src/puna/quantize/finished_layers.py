"""Layers that are done, kept on disk until all are: `FinishedLayers`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from puna.errors import CheckpointError
from puna.quantize.layers import Solution
from puna.quantize.work_folder import WorkFolder

__all__ = ["FinishedLayers"]


class FinishedLayers:
    """A folder of rounded layers beside the model that is being made."""

    def __init__(self, folder: WorkFolder) -> None:
        """Keep layers in a folder."""
        self._folder = folder

    def has(self, index: int) -> bool:
        """Whether the layer is done."""
        return self._folder.has(_file(index))

    def write(self, index: int, solutions: Mapping[str, Solution]) -> None:
        """Keep a layer.

        Raises:
            StoreError: the disk is full.
        """
        tensors: dict[str, Tensor] = {}
        for name, (q, scales) in solutions.items():
            tensors |= {f"{name}.q": q.to(torch.int8), f"{name}.scales": scales}
        self._folder.save(_file(index), tensors, {})

    def read(self, index: int, name: str) -> Solution:
        """A matrix of a layer that is done, by its name within the layer; its integers stay in the file.

        Raises:
            CheckpointError: the file is damaged.
        """
        kept = self._folder.load(_file(index))
        try:
            assert kept is not None, f"layer {index} is not done"
            return kept[1][f"{name}.q"], kept[1][f"{name}.scales"].clone()
        except KeyError as error:
            raise CheckpointError(
                f"{_file(index)} in {self._folder.path} is damaged; remove the folder to begin anew"
            ) from error


def _file(index: int) -> str:
    return f"layer-{index:04d}"
