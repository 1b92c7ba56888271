"""Unfinished work on disk, from which the same call goes on: `WorkFolder`."""

from __future__ import annotations

import hashlib
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
from puna.models.checkpoint import Checkpoint
from puna.models.files import stamps
from puna.models.packed import write_json
from puna.models.room import require_room
from puna.models.safetensors import NewTensor, SafetensorsFile, write_safetensors
from puna.nn.packed import ModelCheckpoint
from puna.quantize.mapped import mapped

__all__ = ["WorkFolder", "identity"]

# torch's type, and one of numpy's that is as wide: numpy has no bfloat16.
_DTYPES = {
    "F64": (torch.float64, np.float64),
    "F32": (torch.float32, np.float32),
    "BF16": (torch.bfloat16, np.int16),
    "F16": (torch.float16, np.float16),
    "I8": (torch.int8, np.int8),
}
_NAMES = {dtype: name for name, (dtype, _) in _DTYPES.items()}


def identity(checkpoint: Checkpoint) -> list[Any]:
    """What tells a model from every other: its path and its files, or in memory its weights."""
    found: list[Any] = [] if isinstance(checkpoint, ModelCheckpoint) else stamps(checkpoint.path)
    if not found:
        digest = hashlib.sha256()
        for name in checkpoint.dtypes:
            digest.update(name.encode() + checkpoint.tensor(name).to_float32().tobytes())
        found = [digest.hexdigest()]
    return [str(checkpoint.path.absolute()), found]


class WorkFolder:
    """A folder that holds what work was asked for, and tensors that it has led to.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        """Name the folder; see `begin`."""
        self.path, self._asked = path, path / "asked.json"

    def begin(self, asked: Mapping[str, Any], n_bytes: int = 0) -> None:
        """Make the folder, or check that it was made for the same.

        Args:
            asked: everything that the result depends on, of JSON's types.
            n_bytes: what will be written in all; where work begins the disk must have as much.

        Raises:
            ConfigError: it holds work that was asked for something else; nothing of it is lost.
            StoreError: it is damaged, cannot be written, or the disk is too full.
        """
        asked = json.loads(json.dumps(asked))
        try:
            if not self._asked.is_file():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                require_room(self.path.parent, n_bytes)
                self.path.mkdir(exist_ok=True)
                part = self._asked.with_name("asked.json.part")
                write_json(part, dict(asked))
                part.rename(self._asked)
                return
            found = json.loads(self._asked.read_text(encoding="utf-8"))
        except OSError as error:
            raise StoreError(
                f"{self.path}, for unfinished work, cannot be used: {error.strerror or error}"
            ) from error
        except ValueError as error:
            raise StoreError(f"{self._asked} is damaged; remove {self.path} to begin anew") from error
        if not isinstance(found, dict):
            found = {}
        other = sorted(key for key in {*found, *asked} if found.get(key) != asked.get(key))
        if other:
            raise ConfigError(
                f"{self.path} holds an unfinished run with another {', '.join(other)}; ask for the same "
                "again to finish it, or remove the folder to begin anew"
            )

    def has(self, name: str) -> bool:
        """Whether something was saved under a name; what is there is whole."""
        return self._file(name).exists()

    def save(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Replace what is kept under a name, all of it or nothing.

        Raises:
            StoreError: the disk is full or the folder is gone.
        """
        new = [
            NewTensor(key, _NAMES[t.dtype], tuple(t.shape), lambda t=t: _bytes(t))  # type: ignore[misc]
            for key, t in tensors.items()
        ]
        write_safetensors(self._file(name), new, {"about": json.dumps(about)})

    def load(self, name: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """What was said about the tensors kept under a name, and them, mapped from the file.

        Returns:
            None where nothing was kept.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not self.has(name):
            return None
        file = SafetensorsFile(self._file(name))
        tensors = {}
        try:
            about = dict(json.loads(file.metadata["about"]))
            for key, entry in file.entries.items():
                dtype, as_wide = _DTYPES[entry.dtype]
                tensors[key] = mapped(file.data(key).view(as_wide)).view(dtype).reshape(entry.shape)
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{file.path} is damaged; remove {self.path} to begin anew") from error
        return about, tensors

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
