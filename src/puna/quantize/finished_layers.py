"""Layers that are done, kept on disk until all are: `FinishedLayers`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from puna.errors import CheckpointError, StoreError
from puna.models.packed import write_json
from puna.models.room import require_room
from puna.models.safetensors import NewTensor, SafetensorsFile, write_safetensors
from puna.quantize.layers import Solution
from puna.quantize.mapped import mapped

__all__ = ["FinishedLayers"]

_DTYPES = {torch.float32: "F32", torch.float64: "F64"}


class FinishedLayers:
    """A folder of rounded layers beside the one that is being made."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; see `begin`."""
        self._folder = folder

    def begin(self, asked: Mapping[str, Any], n_bytes: int) -> None:
        """Keep what the folder has where it was made for the same, else begin anew.

        Args:
            asked: everything that the layers depend on, of JSON's types.
            n_bytes: what will be written in all; where work begins anew the disk must have as much.

        Raises:
            StoreError: the folder cannot be written, or the disk is too full.
        """
        record = self._folder / "asked.json"
        try:
            if not record.is_file() or json.loads(record.read_text(encoding="utf-8")) != asked:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder.parent.mkdir(parents=True, exist_ok=True)
                require_room(self._folder.parent, n_bytes)
                self._folder.mkdir()
                write_json(record, dict(asked))
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._folder}, for unfinished work, cannot be used: {error}") from error

    def has(self, index: int) -> bool:
        """Whether the layer is done; a file is there when it is whole."""
        return self._file(index).exists()

    def write(self, index: int, solutions: Mapping[str, Solution]) -> None:
        """Keep a layer.

        Raises:
            StoreError: the disk is full.
        """
        tensors = []
        for name, (q, scales) in solutions.items():
            for kind, dtype, values in (("q", "I8", q.to(torch.int8)), ("scales", "F32", scales)):
                array = values.numpy()
                tensor = NewTensor(f"{name}.{kind}", dtype, array.shape, lambda array=array: array)  # type: ignore[misc]
                tensors.append(tensor)
        write_safetensors(self._file(index), tensors, {})

    def read(self, index: int, name: str) -> Solution:
        """A matrix of a layer that is done, by its name within the layer; its integers are in the file.

        Raises:
            CheckpointError: the file is damaged.
        """
        file = SafetensorsFile(self._file(index))
        arrays = []
        for kind, dtype in (("q", np.int8), ("scales", np.float32)):
            entry = file.entries.get(f"{name}.{kind}")
            if entry is None:
                raise CheckpointError(f"{file.path} is damaged; remove {self._folder} and begin again")
            arrays.append(file.data(f"{name}.{kind}").view(dtype).reshape(entry.shape))
        return mapped(arrays[0]), torch.from_numpy(arrays[1].copy())

    def write_state(self, stage: str, steps: int, state: Mapping[str, Tensor]) -> None:
        """Keep what a stage has learned after so many steps, in place of what it had before.

        Raises:
            StoreError: the disk is full.
        """
        tensors = [
            NewTensor(
                name,
                _DTYPES[values.dtype],
                tuple(values.shape),
                lambda values=values: values.contiguous().numpy(),  # type: ignore[misc]
            )
            for name, values in state.items()
        ]
        write_safetensors(self._state(stage), tensors, {"steps": str(steps)})

    def read_state(self, stage: str) -> tuple[int, dict[str, Tensor]] | None:
        """Steps and what they led to; None where nothing was kept.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not self._state(stage).exists():
            return None
        file = SafetensorsFile(self._state(stage))
        types = {"F32": np.float32, "F64": np.float64}
        try:
            state = {
                name: torch.from_numpy(file.data(name).view(types[entry.dtype]).reshape(entry.shape).copy())
                for name, entry in file.entries.items()
            }
            return int(file.metadata["steps"]), state
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{file.path} is damaged; remove {self._folder} and begin again") from error

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _state(self, stage: str) -> Path:
        return self._folder / f"{stage}.safetensors"

    def _file(self, index: int) -> Path:
        return self._folder / f"layer-{index:04d}.safetensors"
