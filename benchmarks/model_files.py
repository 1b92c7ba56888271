"""The files that the engines run, made from the seed where they are not there yet."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.random_checkpoint import SHAPES, RandomCheckpoint
from puna.export.gguf import write_gguf
from puna.export.huggingface import write_huggingface
from puna.models import store
from puna.models.catalogue import DEFAULT_MODEL
from puna.models.open import open_checkpoint
from puna.models.packed import write_checkpoint

__all__ = ["DEFAULT_SHAPE", "model_file", "offered", "sha256"]

DEFAULT_SHAPE = "llama3.2-1b"


def _gguf_q4_0(checkpoint: RandomCheckpoint, path: Path) -> None:
    from benchmarks.gguf_file import quantize_q4_0

    source = path.with_name(f"source.{path.name}")
    write_gguf(checkpoint, source)
    quantize_q4_0(source, path)
    source.unlink()


def _executorch(checkpoint: RandomCheckpoint, path: Path) -> None:
    from benchmarks.executorch_file import export_8da4w

    export_8da4w(checkpoint, path)


# How a kind of file ends, and what writes it.
_RANDOM: dict[str, tuple[str, Callable[[RandomCheckpoint, Path], object]]] = {
    "puna-int4": ("-int4", lambda checkpoint, path: write_checkpoint(checkpoint, path, "int4")),
    "puna-bf16": ("-bf16", lambda checkpoint, path: write_checkpoint(checkpoint, path, "bf16")),
    "gguf-bf16": ("-bf16.gguf", write_gguf),
    "gguf-q4_0": ("-q4_0.gguf", _gguf_q4_0),
    "pte-8da4w": ("-8da4w.pte", _executorch),
    "hf-bf16": ("-hf", write_huggingface),
}
# The default model as it is published, and as Puna's store keeps it.
_DEFAULT = ("default-gguf", "default-puna")


def offered(shape: str) -> tuple[str, ...]:
    """Kinds of files that there are of a shape.

    Raises:
        ValueError: there is no such shape.
    """
    if shape == DEFAULT_MODEL:
        return _DEFAULT
    if shape not in SHAPES:
        known = ", ".join([*SHAPES, DEFAULT_MODEL])
        raise ValueError(f"no shape is called {shape!r}; there are {known}")
    return tuple(_RANDOM)


def model_file(kind: str, shape: str, seed: int, folder: Path) -> Path:
    """Path of a file of some kind, which is made where it is not there: in whole or not at all."""
    if kind == "default-gguf":
        return store.path_of(DEFAULT_MODEL)
    suffix = "" if kind == "default-puna" else _RANDOM[kind][0]
    path = folder / f"{shape}{f'-seed{seed}' if seed else ''}{suffix}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished.{path.name}")
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    if kind == "default-puna":
        write_checkpoint(open_checkpoint(store.path_of(DEFAULT_MODEL)), unfinished, "auto")
    else:
        _RANDOM[kind][1](RandomCheckpoint(shape, seed), unfinished)
    unfinished.rename(path)
    return path


def sha256(path: Path) -> str:
    """Checksum of a file, or of all files of a folder in the order of their names."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        with file.open("rb") as stream:
            while part := stream.read(1 << 24):
                digest.update(part)
    return digest.hexdigest()
