"""The state of a run on disk, from which it goes on to the bit: `RunFolder`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from puna.errors import CheckpointError, StoreError
from puna.quantize.work_folder import WorkFolder

__all__ = ["RunFolder"]

_STATE = "state"


class RunFolder:
    """A folder that holds what a run was asked for, its state, and its log.

    Attributes:
        path: the folder.
        log: ``log.jsonl`` in it, a line a step.
    """

    def __init__(self, path: Path) -> None:
        """Name the folder; see `begin`."""
        self.path, self.log = path, path / "log.jsonl"
        self._folder = WorkFolder(path)

    def begin(self, asked: Mapping[str, Any], n_bytes: int = 0) -> None:
        """Make the folder, or check that it was made for the same; see `WorkFolder.begin`.

        Raises:
            ConfigError: it holds a run that was asked for something else; nothing of it is lost.
            StoreError: it is damaged, cannot be written, or the disk is too full.
        """
        self._folder.begin(asked, n_bytes)

    def save(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Replace the state, all of it or nothing.

        Raises:
            StoreError: the disk is full or the folder is gone.
        """
        self._folder.save(_STATE, tensors, about)

    def restore(self, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """Fill tensors with those of the state.

        Args:
            tensors: what to fill in place, by the names they were saved under.

        Returns:
            What was said about the state, or None where there is none yet.

        Raises:
            CheckpointError: the state is damaged, or of another model.
        """
        kept = self._folder.load(_STATE)
        if kept is None:
            return None
        about, found = kept
        for name, tensor in tensors.items():
            values = found.get(name)
            if values is None or (values.dtype, values.shape) != (tensor.dtype, tensor.shape):
                raise CheckpointError(
                    f"{self.path}: {name!r} of the state is missing or of another kind; remove the folder "
                    "to begin anew"
                )
            tensor.copy_(values)
        return about

    def cut_log(self, step: int) -> None:
        """Drop the lines of steps from this one on: they will be made again.

        Raises:
            StoreError: the log is damaged, or cannot be read or written; it is left as it was.
        """
        if not self.log.exists():
            return
        part = self.log.with_name(f"{self.log.name}.part")
        try:
            lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
            # A line without an end is what a killed process came to.
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < step]
            part.write_text("".join(kept), encoding="utf-8")
            part.rename(self.log)
        except OSError as error:
            raise StoreError(f"{self.log} cannot be used: {error.strerror or error}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{self.log} is damaged; move it away to go on without it") from error

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
        self._folder.remove()
