"""Models that other programs have on this machine: Ollama's blobs and Hugging Face's cache, used in place."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.errors import CheckpointError
from puna.models.digests import Digest
from puna.models.files import read_head, read_json_object
from puna.models.gguf_file import is_gguf

__all__ = ["FoundModel", "find_in_hub_cache", "find_in_ollama"]

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MODEL_LAYER = "application/vnd.ollama.image.model"


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundModel:
    """A model that another program has.

    Attributes:
        path: what to open: a GGUF file or a folder.
        origin: whose it is, as `puna.models.source_file.Source` has it.
        digests: checksums that its owner goes by, by file name.
    """

    path: Path
    origin: str
    digests: dict[str, Digest]


def find_in_ollama(name: str) -> FoundModel | None:
    """Find a model that Ollama has pulled.

    Args:
        name: as Ollama writes it: ``llama3.2:1b``, ``user/model:tag``, ``hf.co/org/repo:tag``; the tag
            is ``latest`` where there is none.

    Returns:
        None where Ollama does not have it, or has it in more than one file.
    """
    model, _, tag = name.partition(":")
    parts = model.split("/")
    if not all(_PART.fullmatch(part) for part in (*parts, tag or "latest")) or len(parts) > 3:
        return None
    host = [] if len(parts) == 3 else ["registry.ollama.ai", "library"][: 3 - len(parts)]
    for root in _ollama_roots():
        blob = _model_blob(root, root.joinpath("manifests", *host, *parts, tag or "latest"))
        if blob is not None:
            digest = Digest("sha256", blob.name.removeprefix("sha256-"))
            return FoundModel(path=blob, origin=f"ollama:{name}", digests={blob.name: digest})
    return None


def _ollama_roots() -> list[Path]:
    given = os.environ.get("OLLAMA_MODELS")
    # The second is where the service keeps them on Linux.
    folders = [given] if given else ["~/.ollama/models", "/usr/share/ollama/.ollama/models"]
    return [Path(os.path.expanduser(folder)) for folder in folders]


def _model_blob(root: Path, manifest: Path) -> Path | None:
    try:
        if not manifest.is_file():
            return None
        layers: Any = read_json_object(manifest).get("layers")
        models = [layer for layer in layers if layer["mediaType"] == _MODEL_LAYER]
        match = re.fullmatch("sha256:([0-9a-f]{64})", models[0]["digest"]) if len(models) == 1 else None
        if match is None:
            return None
        blob = root / "blobs" / f"sha256-{match[1]}"
        if blob.stat().st_size != models[0]["size"] or not is_gguf(read_head(blob)):
            return None
    except (CheckpointError, OSError, TypeError, LookupError):
        return None  # somebody else's files: whatever is wrong with them, the model is not to be had there
    return blob


def find_in_hub_cache(repository: str) -> FoundModel | None:
    """Find a whole model in Hugging Face's cache.

    Args:
        repository: ``ORG/REPO``.

    Returns:
        None where the cache does not have its main revision, or not all of it.
    """
    folder = _hub_cache() / f"models--{repository.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text(encoding="ascii").strip()
        if not _PART.fullmatch(revision):
            return None
        snapshot = folder / "snapshots" / revision
        if not _is_whole(snapshot):
            return None
        digests = {path.name: _etag(path) for path in snapshot.iterdir() if path.is_file()}
    except (CheckpointError, OSError, ValueError):
        return None
    return FoundModel(
        path=snapshot,
        origin=f"hf-cache:{repository}",
        digests={name: digest for name, digest in digests.items() if digest is not None},
    )


def _hub_cache() -> Path:
    """Where huggingface_hub keeps it, by the same variables."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(os.path.expanduser(os.path.expandvars(given)))
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(os.path.expanduser(os.path.expandvars(home))) / "hub"


def _is_whole(snapshot: Path) -> bool:
    index = snapshot / "model.safetensors.index.json"
    needed: set[Any] = {"config.json"}
    if (snapshot / "model.safetensors").is_file():
        needed.add("model.safetensors")
    elif index.is_file():
        parts = read_json_object(index).get("weight_map")
        needed.update(parts.values() if isinstance(parts, dict) else [None])
    else:
        return False
    if not any((snapshot / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return False
    return all(
        isinstance(name, str) and _PART.fullmatch(name) and (snapshot / name).is_file() for name in needed
    )


def _etag(path: Path) -> Digest | None:
    """The cache's files are links to blobs whose names are their checksums."""
    name = path.resolve().name
    digest = Digest("sha256" if len(name) == 64 else "git-sha1", name)
    return digest if digest.is_well_formed else None
