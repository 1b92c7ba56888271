"""The small file beside a model in the store that says where the model is from: ``puna-source.json``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from puna.errors import CheckpointError
from puna.models.digests import Digest
from puna.models.files import read_json_object

__all__ = ["NAME", "Source", "SourceFile", "read_source", "write_source"]

NAME = "puna-source.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file as its source publishes it.

    Attributes:
        name: of the file, in the model's folder.
        size: in bytes.
        digest: its checksum, None where none is published.
    """

    name: str
    size: int
    digest: Digest | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a model is from.

    Attributes:
        origin: ``hf:ORG/REPO[:FILE]``, ``meta:FOLDER``, ``pypi:PACKAGE==VERSION``, ``ollama:NAME``,
            ``hf-cache:ORG/REPO`` or ``path:PATH``.
        files: the model's files.
        licence: name of its terms, None where they are not known.
        duties: what they ask.
        revision: the commit of a repository.
        link: for files that are used where they are: what to open, an absolute path.
    """

    origin: str
    files: tuple[SourceFile, ...]
    licence: str | None = None
    duties: tuple[str, ...] = field(default=())
    revision: str | None = None
    link: Path | None = None

    def folder(self, own: Path) -> Path:
        """Where the files are.

        Args:
            own: the model's folder in the store.
        """
        if self.link is None:
            return own
        return self.link if os.path.isdir(self.link) else self.link.parent


def write_source(folder: Path, source: Source) -> None:
    """Write the file into a model's folder."""
    value = {
        "origin": source.origin,
        "revision": source.revision,
        "link": None if source.link is None else str(source.link),
        "licence": source.licence,
        "duties": source.duties,
        "files": [
            {
                "name": file.name,
                "size": file.size,
                **({file.digest.kind: file.digest.value} if file.digest else {}),
            }
            for file in source.files
        ],
    }
    # In one step, as what is there already is needed where the disk is full.
    part = folder / f"{NAME}.part"
    try:
        part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        part.replace(folder / NAME)
    finally:
        part.unlink(missing_ok=True)


def read_source(folder: Path) -> Source | None:
    """Read the file of a model's folder.

    Returns:
        None where there is none, as in a folder that somebody put there by hand.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    raw = read_json_object(path)
    try:
        link = raw["link"]
        source = Source(
            origin=str(raw["origin"]),
            revision=None if raw["revision"] is None else str(raw["revision"]),
            licence=None if raw["licence"] is None else str(raw["licence"]),
            duties=tuple(str(duty) for duty in raw["duties"]),
            link=None if link is None else Path(link),
            files=tuple(_file(file) for file in raw["files"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error!r:.200}); `puna rm` the model and fetch it again"
        ) from error
    return source


def _file(raw: dict[str, Any]) -> SourceFile:
    name, size = raw["name"], raw["size"]
    if not isinstance(name, str) or Path(name).name != name or type(size) is not int or size < 0:
        raise ValueError(f"a file {name!r:.100} of {size!r:.50} bytes")
    digests = [Digest(kind, raw[kind]) for kind in ("sha256", "md5", "git-sha1") if kind in raw]
    if not all(digest.is_well_formed for digest in digests):
        raise ValueError(f"a checksum of {name!r:.100}")
    return SourceFile(name=name, size=size, digest=digests[0] if digests else None)
