"""From what a user writes to an open checkpoint: name, path or store, packed once and then mapped."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from puna.errors import CheckpointError, UnknownModelError
from puna.models.catalogue import CatalogueRow, resolve
from puna.models.checkpoint import Checkpoint
from puna.models.lock import locked
from puna.models.open import open_checkpoint
from puna.models.packed import Progress as PackProgress
from puna.models.packed import write_checkpoint
from puna.models.store import Progress, find, packed_folder, path_of, refused

__all__ = ["LocalModel", "known_format", "known_row", "open_model"]


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model found on this machine.

    Attributes:
        name: its name in the store, or the name of its file or folder.
        checkpoint: what to load: the packed copy where the store keeps one, else what was fetched or given.
        chat_format: the format that the catalogue names; None where it does not know the model.
    """

    name: str
    checkpoint: Checkpoint
    chat_format: str | None = None


def open_model(
    name_or_path: str,
    wanted: str,
    fetching: Progress | None = None,
    packing: PackProgress | None = None,
) -> LocalModel:
    """Find a model and open it, ready to be loaded quickly the next time.

    Models whose files are in the store get a packed copy there, made on first use; what lies elsewhere
    is used in place.

    Args:
        name_or_path: a name in the catalogue or the store, or a path.
        wanted: one of `puna.models.packed.FORMATS`.
        fetching: is told about a download.
        packing: is told about the making of the packed copy.

    Raises:
        UnknownModelError: there is no such model.
        StoreError: it cannot be fetched or the store cannot be written.
        CheckpointError: it is damaged or not supported.
    """
    path = path_of(name_or_path, fetching)
    model = find(name_or_path)
    if model is None or model.path != path:
        return LocalModel(path.stem if path.is_file() else path.resolve().name, open_checkpoint(path))
    chat_format = known_format(model.name)
    if model.is_linked:  # its owner may change it, and a packed copy would not
        return LocalModel(model.name, open_checkpoint(path), chat_format)
    packed = _packed_copy(path, packed_folder(model.name) / wanted, wanted, packing)
    return LocalModel(model.name, packed, chat_format)


def known_format(name: str) -> str | None:
    """Name of the chat format that the catalogue gives a model, None where it has no such model."""
    row = known_row(name)
    if row is None:
        return None
    # The guards differ from one another, and their names say how.
    return row.name.removesuffix("-int4") if row.prompt_format == "llama-guard-3" else row.prompt_format


def known_row(name: str) -> CatalogueRow | None:
    """The catalogue's row of a model, None where it has no such model."""
    try:
        return resolve(name)
    except UnknownModelError:
        return None


def _packed_copy(path: Path, folder: Path, wanted: str, packing: PackProgress | None) -> Checkpoint:
    # The source is opened for packing only: reading the list of its tokens takes longer than all else here.
    found = _open_whole(folder)
    if found is not None:
        return found
    source = open_checkpoint(path)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / ".lock", lambda: None):
            # Another process may have made it meanwhile; a killed one leaves what it had.
            found = _open_whole(folder)
            if found is None:
                for left in (folder, *folder.parent.glob(f".{folder.name}.*.part")):
                    shutil.rmtree(left, ignore_errors=True)
                write_checkpoint(source, folder, wanted, packing)
    except OSError as error:
        raise refused(folder, error) from error
    return found or open_checkpoint(folder)


def _open_whole(folder: Path) -> Checkpoint | None:
    """The packed copy; None where there is none, or one that is damaged or of an older layout."""
    try:
        return open_checkpoint(folder) if folder.exists() else None
    except CheckpointError:
        return None
