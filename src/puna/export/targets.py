"""Every program's files that Puna writes, by name: `write`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from puna.errors import ConfigError, nearest
from puna.export.folded import folded
from puna.models.checkpoint import Checkpoint
from puna.models.packed import PackedAs, Progress

__all__ = ["TARGETS", "write"]

# A module of this package, and its function: (checkpoint, out, progress) -> what was rounded.
_WRITERS = {
    "gguf": ("gguf", "write_gguf"),
    "huggingface": ("huggingface", "write_huggingface"),
    "compressed-tensors": ("compressed_tensors", "write_compressed_tensors"),
    "meta": ("meta", "write_meta"),
    "peft": ("peft", "write_peft"),
    "executorch": ("executorch", "write_executorch"),
}
TARGETS = tuple(_WRITERS)
"""What a user may ask for."""

Writer = Callable[[Checkpoint, Path, Progress | None], list[str]]


def write(
    checkpoint: Checkpoint,
    out: Path,
    target: str,
    wanted: str = "auto",
    progress: Progress | None = None,
    *,
    context: int | None = None,
) -> list[str]:
    """Write a model for another program, all of it or nothing.

    Args:
        checkpoint: the source.
        out: the file or folder to make; it must not exist yet.
        target: one of `TARGETS`.
        wanted: one of `puna.models.packed.FORMATS`, to which the matrices are rounded first; ``auto`` takes
            them as they are. ``bf16`` and ``f32`` make a plain Llama of a model with rotations or adaptors,
            except for ``peft``.
        progress: told of every tensor.
        context: positions of the cache, for ``executorch``, whose programs have it inside; None: its default.

    Returns:
        What was rounded on the way from the checkpoint's own grid to the target's, a sentence each.

    Raises:
        ConfigError: the target or the format is unknown, needs a package that is not there, or has no cache.
        CheckpointError: the source is damaged, or the target cannot say what it is.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    if target not in _WRITERS:
        raise ConfigError(f"target {target!r} is unknown; {nearest(target, TARGETS)}")
    if context is not None and target != "executorch":
        raise ConfigError(f"a context is part of ExecuTorch's programs only, not of {target}; leave it out")
    module, function = _WRITERS[target]
    if wanted in ("bf16", "f32") and target != "peft":  # which is for the adaptors
        checkpoint = folded(checkpoint)
    writer = getattr(import_module(f"puna.export.{module}"), function)
    run: Writer = writer if context is None else partial(writer, context=context)
    return run(checkpoint if wanted == "auto" else PackedAs(checkpoint, wanted), out, progress)
