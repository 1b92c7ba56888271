"""Checksums of files, in the kinds that the sources of models publish."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Digest", "digest_of"]

Kind = Literal["sha256", "md5", "git-sha1"]
_CHUNK_BYTES = 1 << 20
_LENGTHS: dict[str, int] = {"sha256": 64, "md5": 32, "git-sha1": 40}
_WORDS: dict[str, str] = {"sha256": "SHA-256", "md5": "MD5", "git-sha1": "git SHA-1"}


@dataclass(frozen=True, slots=True)
class Digest:
    """A checksum that a file must have.

    Attributes:
        kind: ``sha256``; ``md5``, as in Meta's checklists; ``git-sha1``, of git's blob of the file.
        value: lower-case hex.
    """

    kind: Kind
    value: str

    def __str__(self) -> str:
        """For messages: ``SHA-256 0123...``."""
        return f"{_WORDS[self.kind]} {self.value}"

    @property
    def is_well_formed(self) -> bool:
        """Whether the value has the kind's length and alphabet; what comes from outside may not."""
        length = _LENGTHS.get(self.kind)
        return length is not None and re.fullmatch(f"[0-9a-f]{{{length}}}", self.value) is not None


def digest_of(path: Path, kind: Kind) -> Digest:
    """Compute a file's checksum.

    Raises:
        OSError: the file cannot be read.
    """
    # MD5 and SHA-1 only find damage here, as Meta and git use them; they are no proof of origin.
    hasher = hashlib.new({"git-sha1": "sha1"}.get(kind, kind), usedforsecurity=False)
    with path.open("rb") as file:
        if kind == "git-sha1":
            hasher.update(b"blob %d\0" % path.stat().st_size)
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return Digest(kind, hasher.hexdigest())
