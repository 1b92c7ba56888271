"""Opening a model by its path, whatever format it is in: `open_checkpoint`."""

from __future__ import annotations

from pathlib import Path

from puna.errors import CheckpointError
from puna.models.checkpoint import Checkpoint
from puna.models.files import read_head, read_json_object
from puna.models.gguf import GgufCheckpoint
from puna.models.gguf_file import is_gguf
from puna.models.gguf_parts import is_later_part
from puna.models.huggingface import HuggingFaceCheckpoint
from puna.models.meta import MetaCheckpoint
from puna.models.meta_folder import is_quantized, read_params

__all__ = ["open_checkpoint"]

_FORMATS = "a GGUF file, or a folder with config.json or params.json and the weights"
# PyTorch's pickles: a zip archive, or (before 1.6) a bare pickle of protocol 2.
_PICKLE_HEADS = (b"PK\x03\x04", b"\x80\x02")


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a model for reading.

    Args:
        path: a GGUF file, a folder that holds one (or the parts of one), or a folder in Hugging Face's,
            Meta's or Puna's layout. What counts is what is inside, not the name.

    Raises:
        CheckpointError: there is nothing at that path, its format is not read, or it is damaged.
    """
    try:
        if path.is_dir():
            return _open_folder(path)
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist; give the path of {_FORMATS}")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    return _open_file(path)


def _open_file(path: Path) -> Checkpoint:
    head = read_head(path)
    if is_gguf(head):
        return GgufCheckpoint(path)
    if head.startswith(_PICKLE_HEADS) or path.suffix == ".safetensors":
        raise CheckpointError(
            f"{path} holds tensors only; give its folder, which also has config.json or params.json"
        )
    raise CheckpointError(f"{path} is not a model file, it begins with {head[:8]!r}; Puna reads {_FORMATS}")


def _open_folder(folder: Path) -> Checkpoint:
    if (folder / "config.json").is_file():
        if "puna" in read_json_object(folder / "config.json"):
            from puna.models.packed import PunaCheckpoint

            return PunaCheckpoint(folder)
        return HuggingFaceCheckpoint(folder)
    if (folder / "params.json").is_file():
        return _open_meta(folder)
    names = sorted(child.name for child in folder.iterdir())
    gguf = [name for name in names if name.endswith(".gguf") and not is_later_part(name)]
    if len(gguf) == 1:
        return GgufCheckpoint(folder / gguf[0])
    if gguf:
        raise CheckpointError(
            f"{folder} holds {len(gguf)} GGUF files; give the path of one: {', '.join(gguf)}"
        )
    if not names:
        raise CheckpointError(f"{folder} is empty; give the path of {_FORMATS}")
    raise CheckpointError(
        f"{folder} holds no config.json, no params.json and no GGUF file; give the path of {_FORMATS}"
    )


def _open_meta(folder: Path) -> Checkpoint:
    if is_quantized(read_params(folder)):
        from puna.models.meta_quantized import MetaQuantizedCheckpoint

        return MetaQuantizedCheckpoint(folder)
    return MetaCheckpoint(folder)
