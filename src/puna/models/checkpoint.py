"""The one interface over checkpoint files: a config, a vocabulary and named tensors.

Readers (`gguf.py`, `huggingface.py`, `meta.py`) translate their file's names, order of rows and spelling of
settings into what this page defines, so that nothing above this package knows where a model came
from. Names are Hugging Face's; rotary rows of q and k are in Hugging Face's half-split order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.models.config import ModelConfig
from puna.models.tokenizer_json import TokenizerJson

__all__ = ["Checkpoint", "Tensor", "Vocabulary", "check_names", "check_shapes"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as its file stores it, not yet dequantized.

    Attributes:
        name: Hugging Face name, ``model.layers.0.mlp.up_proj.weight``.
        dtype: GGUF's word for the storage: ``F32``, ``F16``, ``BF16``, ``Q8_0``, ``Q4_0``, ``Q4_1``, ...
        shape: ``(out, in)`` or ``(dim,)``, elements and not bytes.
        data: the bytes, uint8, read-only, usually a view into a memory-mapped file;
            ``[out, bytes a row]`` for matrices, ``[bytes]`` for vectors.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    def to_float32(self) -> NDArray[np.float32]:
        """The values, dequantized: ``shape``, float32, C order, freshly allocated."""
        from puna.models.blocks import dequantize

        return dequantize(self.dtype, self.data, self.shape)

    def to_groups(self) -> tuple[NDArray[np.int8], NDArray[np.float16]] | None:
        """Symmetric group-of-32 integers where the storage is exactly that, else None.

        Returns:
            For ``Q4_0`` (values -8 to 7) and ``Q8_0``: integers ``[out, in]`` and scales
            ``[out, in / 32]`` with ``value = integer * scale``, without any loss.
        """
        from puna.models.blocks import groups_of_32

        return groups_of_32(self.dtype, self.data, self.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """What a checkpoint says about text: the tokenizer and the tokens with a meaning of their own.

    Attributes:
        tokenizer_json: a Hugging Face ``tokenizer.json``, made from the file's own vocabulary where the
            source has another.
        bos_id: token that opens a text, None where there is none.
        eos_ids: tokens after which a model has said all it wants to.
        add_bos: whether a plain text starts with `bos_id`.
        chat_template: the model's own Jinja template, None for a base model.
        special_tokens: named special tokens that templates may print (``bos_token``: text).
    """

    tokenizer_json: TokenizerJson
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    add_bos: bool = False
    chat_template: str | None = None
    special_tokens: dict[str, str] = field(default_factory=dict)


class Checkpoint(Protocol):
    """A model on disk, open for reading, one tensor at a time; closing is the garbage collector's."""

    path: Path
    kind: str  # "GGUF", "Hugging Face", "Meta", "Meta quantized" or "Puna", for people
    config: ModelConfig
    dtypes: dict[str, str]  # tensor name -> storage, in the order of `ModelConfig.tensor_shapes`

    def tensor(self, name: str) -> Tensor:
        """The named tensor; `CheckpointError` where it is damaged or not there."""
        ...

    def vocabulary(self) -> Vocabulary:
        """The tokenizer and its special tokens; `CheckpointError` where the checkpoint has none."""
        ...


def check_names(source: str, config: ModelConfig, found: Iterable[str]) -> None:
    """Insist that a checkpoint has exactly the tensors its config calls for.

    Args:
        source: the file, for the message.
        config: what the tensors must be.
        found: Hugging Face names of the file's tensors, those ignored on purpose left out.

    Raises:
        CheckpointError: tensors are missing, or there are some that no part of a Llama would read.
    """
    needed, have = set(config.tensor_shapes()), set(found)
    missing, extra = sorted(needed - have), sorted(have - needed)
    if missing:
        raise CheckpointError(
            f"{source}: {len(missing)} tensors are missing, the first is {missing[0]!r:.100}; "
            "the download may be incomplete"
        )
    if extra:
        raise CheckpointError(
            f"{source}: {len(extra)} tensors belong to no part of a Llama, the first is {extra[0]!r:.100}"
        )


def check_shapes(source: str, config: ModelConfig, found: Mapping[str, tuple[int, ...]]) -> None:
    """Insist that a checkpoint has exactly the tensors its config calls for, each of the right shape.

    Args:
        source: the file, for the message.
        config: what the tensors must be.
        found: shapes of the file's tensors by Hugging Face name, those ignored on purpose left out.

    Raises:
        CheckpointError: as `check_names`, or a tensor has another shape.
    """
    check_names(source, config, found)
    for name, needed in config.tensor_shapes().items():
        if found[name] != needed:
            raise CheckpointError(f"{source}: tensor {name!r} needs shape {needed}, got {found[name]}")
