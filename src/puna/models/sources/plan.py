"""What a source says about a model that can be fetched: `Plan`, a list of files with sizes and checksums."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from puna.errors import DownloadError, UnknownModelError
from puna.models.catalogue import resolve
from puna.models.digests import Digest
from puna.models.rows import CatalogueRow

__all__ = ["Plan", "RemoteFile", "checked_name", "store_name"]

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._+=-]{0,199}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """One file of a model.

    Attributes:
        name: of the file in the model's folder; no folders in it.
        url: where it is.
        size: in bytes.
        digest: its checksum, None where the source publishes none.
    """

    name: str
    url: str = field(repr=False)  # may be signed
    size: int
    digest: Digest | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A model that can be fetched.

    Attributes:
        name: what it will be called in the store.
        origin: where it comes from, as `puna.models.source_file.Source` has it.
        files: all of its files.
        revision: the commit of a repository.
        headers: sent with each request, a token perhaps among them.
        row: its row in the catalogue, where it has one.
        licence: what the source calls the licence, for a model without a row.
    """

    name: str
    origin: str
    files: tuple[RemoteFile, ...]
    revision: str | None = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    row: CatalogueRow | None = None
    licence: str | None = None

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)


def checked_name(name: str, source: str) -> str:
    """Insist that a file name from outside is a plain one: no folders, no hidden file, no control character.

    Args:
        name: the name.
        source: who gave it, for the message.

    Raises:
        DownloadError: it is another.
    """
    if not _FILE_NAME.fullmatch(name):
        raise DownloadError(
            f"{source} names a file {name!r:.100}; needed is a plain file name without folders"
        )
    return name


def store_name(stem: str, owner: str) -> str:
    """What a model that is not in the catalogue is called in the store.

    Args:
        stem: name of its repository, file or folder.
        owner: goes before it where the catalogue has another model of that name.
    """
    name = re.sub("[^a-z0-9._-]+", "-", stem.lower()).strip(".-")[:100] or "model"
    try:
        resolve(name)
    except UnknownModelError:
        return name
    return re.sub("[^a-z0-9._-]+", "-", f"{owner.lower()}-{name}").strip(".-")
