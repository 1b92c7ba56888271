"""GGUF models in several files, ``name-00001-of-00003.gguf`` and so on: `open_parts`.

The first part has the metadata; each has some of the tensors. What a file says of itself must agree
with its name, so that parts of two models are not taken for one.
"""

from __future__ import annotations

import re
from pathlib import Path

from puna.errors import CheckpointError
from puna.models.gguf_file import GgufFile

__all__ = ["is_later_part", "open_parts"]

_PART = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf")


def is_later_part(name: str) -> bool:
    """Whether a file of this name is the second or a later part of a model."""
    match = _PART.fullmatch(name)
    return match is not None and int(match[2]) > 1


def open_parts(path: Path) -> list[GgufFile]:
    """Open a model given by its file, or by any of its parts.

    Args:
        path: a GGUF file; the other parts lie beside it.

    Returns:
        The parts in order; one where the model is in one file.

    Raises:
        CheckpointError: a part is missing, damaged or of another model, or two have the same tensor.
    """
    given = GgufFile(path)
    count = given.metadata.get("split.count", 1)
    if type(count) is int and count in (0, 1):
        return [given]
    match = _PART.fullmatch(path.name)
    if match is None or count != int(match[3]):
        raise CheckpointError(
            f"{path} is one of {count!r:.50} parts of a model, which Puna finds by names that end in "
            "-00001-of-00003.gguf; give it the name that it was published with"
        )
    names = [f"{match[1]}-{number:05d}-of-{match[3]}.gguf" for number in range(1, count + 1)]
    parts = [given if name == path.name else GgufFile(path.with_name(name)) for name in names]
    _check(parts, count)
    return parts


def _check(parts: list[GgufFile], count: int) -> None:
    seen: set[str] = set()
    for number, part in enumerate(parts):
        found = (part.metadata.get("split.no"), part.metadata.get("split.count"))
        if found != (number, count):
            raise CheckpointError(
                f"{part.path} needs to be part {number} (from 0) of {count}, it says {found!r:.100}; "
                "its name is another part's"
            )
        twice = sorted(seen & part.tensors.keys())
        if twice:
            raise CheckpointError(f"{part.path} has the tensor {twice[0]!r}, which an earlier part has too")
        seen |= part.tensors.keys()
    needed = parts[0].metadata.get("split.tensors.count", len(seen))
    if needed != len(seen):
        raise CheckpointError(
            f"{parts[0].path}: the parts need {needed!r:.50} tensors together, got {len(seen)}"
        )
