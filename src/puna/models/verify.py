"""Checking a model of the store against the sizes and checksums that its source publishes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from puna.models.digests import digest_of
from puna.models.source_file import SourceFile, read_source
from puna.models.store import InstalledModel

__all__ = ["FileCheck", "verify"]


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What became of one file.

    Attributes:
        name: of the file.
        verdict: ``ok``; ``size only``: its source publishes no checksum; ``missing``; ``damaged``.
        detail: what was needed and found, for a file that is not as it should be.
    """

    name: str
    verdict: Literal["ok", "size only", "missing", "damaged"]
    detail: str = ""

    @property
    def is_good(self) -> bool:
        """Nothing speaks against the file."""
        return self.verdict in ("ok", "size only")


def verify(model: InstalledModel) -> list[FileCheck]:
    """Read every file of a model and compare it with what its source publishes.

    Args:
        model: as `puna.models.store.installed` gives it.

    Returns:
        A check for each file; empty where it is not known what the files must be.

    Raises:
        CheckpointError: the note of what they must be is damaged itself.
    """
    source = read_source(model.folder)
    if source is None:
        return []
    folder = source.folder(model.folder)
    return [_check(folder / file.name, file) for file in source.files]


def _check(path: Path, file: SourceFile) -> FileCheck:
    try:
        size = path.stat().st_size
        if size != file.size:
            return FileCheck(file.name, "damaged", f"{path} must have {file.size} bytes, got {size}")
        if file.digest is None:
            return FileCheck(file.name, "size only")
        found = digest_of(path, file.digest.kind)
    except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
        return FileCheck(file.name, "missing", f"{path}: {getattr(error, 'strerror', None) or error}")
    if found != file.digest:
        return FileCheck(file.name, "damaged", f"{path} needs the {file.digest}, got {found}")
    return FileCheck(file.name, "ok")
