"""The state of a run on disk, from which it goes on to the bit: `RunFolder`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from puna.errors import CheckpointError, ConfigError, StoreError
from puna.models.packed import write_json
from puna.models.room import require_room
from puna.models.safetensors import NewTensor, SafetensorsFile, write_safetensors

__all__ = ["RunFolder"]

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class RunFolder:
    """A folder that holds what a run was asked for, its state, and its log.

    Attributes:
        path: the folder.
        log: ``log.jsonl`` in it, a line a step.
    """

    def __init__(self, path: Path) -> None:
        """Name the folder; see `begin`."""
        self.path, self.log = path, path / "log.jsonl"
        self._asked, self._state = path / "asked.json", path / "state.safetensors"

    def begin(self, asked: Mapping[str, Any], n_bytes: int = 0) -> None:
        """Make the folder, or check that it was made for the same.

        Args:
            asked: everything that the result depends on, of JSON's types.
            n_bytes: what will be written in all; where a run begins the disk must have as much.

        Raises:
            ConfigError: it holds a run that was asked for something else; nothing of it is lost.
            StoreError: it cannot be written, or the disk is too full.
        """
        asked = json.loads(json.dumps(asked))
        try:
            if not self._asked.is_file():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                require_room(self.path.parent, n_bytes)
                self.path.mkdir(exist_ok=True)
                write_json(self._asked, dict(asked))
                return
            found = json.loads(self._asked.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.path}, for unfinished work, cannot be used: {error}") from error
        if not isinstance(found, dict):
            found = {}
        other = sorted(key for key in {*found, *asked} if found.get(key) != asked.get(key))
        if other:
            raise ConfigError(
                f"{self.path} holds an unfinished run with another {', '.join(other)}; ask for the same "
                "again to finish it, or remove the folder to begin anew"
            )

    def save(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Replace the state, all of it or nothing.

        Raises:
            StoreError: the disk is full or the folder is gone.
        """
        new = [
            NewTensor(name, _NAMES[t.dtype], tuple(t.shape), lambda t=t: _bytes(t))  # type: ignore[misc]
            for name, t in tensors.items()
        ]
        write_safetensors(self._state, new, {"about": json.dumps(about)})

    def restore(self, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """Fill tensors with those of the state.

        Args:
            tensors: what to fill in place, by the names they were saved under.

        Returns:
            What was said about the state, or None where there is none yet.

        Raises:
            CheckpointError: the state is damaged, or of another model.
        """
        if not self._state.exists():
            return None
        file = SafetensorsFile(self._state)
        for name, tensor in tensors.items():
            entry = file.entries.get(name)
            if entry is None or (entry.dtype, entry.shape) != (_NAMES[tensor.dtype], tuple(tensor.shape)):
                raise CheckpointError(
                    f"{file.path}: {name!r} is missing or of another kind; remove {self.path} to begin anew"
                )
            values = torch.from_numpy(np.array(file.data(name))).view(tensor.dtype)
            tensor.copy_(values.reshape(tensor.shape))
        try:
            about = json.loads(file.metadata["about"])
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{file.path}: its header says nothing of the run; remove {self.path} to begin anew"
            ) from error
        return dict(about)

    def cut_log(self, step: int) -> None:
        """Drop the lines of steps from this one on: they will be made again."""
        if not self.log.exists():
            return
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < step]
        self.log.write_text("".join(kept), encoding="utf-8")

    def add_to_log(self, line: Mapping[str, Any]) -> None:
        """Write a line.

        Raises:
            StoreError: the disk is full or the folder is gone.
        """
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise StoreError(f"{self.log} cannot be written: {error.strerror or error}") from error

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
