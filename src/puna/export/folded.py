"""Rotations and adaptors multiplied into float weights, for programs that have neither: `folded`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.models.checkpoint import Checkpoint, Tensor, Vocabulary

__all__ = ["folded", "require_plain", "rotated"]

_ROTATION = "model.norm.rotation.weight"


def require_plain(checkpoint: Checkpoint, target: str) -> None:
    """Refuse a model with parts that another program would leave out, and compute something else.

    Args:
        checkpoint: the model.
        target: what has no place for those parts, for the message.

    Raises:
        CheckpointError: the model has `ModelConfig.additions`.
    """
    additions = checkpoint.config.additions
    if additions:
        raise CheckpointError(
            f"{checkpoint.path}: {target} cannot say that a model has {' and '.join(additions)}; "
            "`puna export --to huggingface` multiplies such parts into bfloat16 weights, and `--to gguf "
            "--format bf16` does; for 4 bits quantize the model without them: `puna quantize --method gptq`"
        )


def folded(checkpoint: Checkpoint, *, with_adaptors: bool = True) -> Checkpoint:
    """The same function as a plain Llama: what it has beyond one is multiplied into its weights.

    Args:
        checkpoint: any model; one without `ModelConfig.additions` is returned as it is.
        with_adaptors: False leaves them out, for what keeps them apart.

    Returns:
        A checkpoint of float32 tensors, each computed when it is asked for. A tied head that a matrix stood
        before is one of its own.
    """
    return _Folded(checkpoint, with_adaptors) if checkpoint.config.additions else checkpoint


class _Folded:
    """Implements `Checkpoint`, see `folded`."""

    def __init__(self, source: Checkpoint, with_adaptors: bool) -> None:
        given = source.config
        self.path, self.kind = source.path, source.kind
        self.config = replace(
            given,
            has_down_rotation=False,
            has_output_rotation=False,
            lora_rank=0,
            lora_scale=1.0,
            tied_embeddings=given.tied_embeddings and not given.has_output_rotation,
        )
        self.dtypes = dict.fromkeys(self.config.tensor_shapes(), "F32")
        self._source = source
        self._with_adaptors = with_adaptors

    def tensor(self, name: str) -> Tensor:
        """The named tensor, what belongs to it multiplied in."""
        if name == "lm_head.weight" and self._source.config.has_output_rotation:
            head = "model.embed_tokens.weight" if self._source.config.tied_embeddings else name
            values = self._values(head) @ self._values(_ROTATION)
        else:
            values = self._linear(name) if name.endswith("_proj.weight") else self._values(name)
        data = np.ascontiguousarray(values, np.float32).view(np.uint8)
        return Tensor(name, "F32", self.config.tensor_shapes()[name], data)

    def vocabulary(self) -> Vocabulary:
        """The source's."""
        return self._source.vocabulary()

    def _values(self, name: str) -> NDArray[np.float32]:
        return self._source.tensor(name).to_float32()

    def _linear(self, name: str) -> NDArray[np.float32]:
        config, stem = self._source.config, name.removesuffix(".weight")
        values = self._values(name)
        if config.lora_rank and self._with_adaptors:
            down, up = (self._values(f"{stem}.lora_{half}.weight") for half in "AB")
            values = values + np.float32(config.lora_scale) * (up @ down)
        if config.has_down_rotation and stem.endswith("mlp.down_proj"):
            values = rotated(values, config.rotation_block)
        return values


def rotated(values: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Multiply every run of `block` columns by the normalized Hadamard matrix: ``[out, in]`` to the same."""
    shape, half = values.shape, 1
    while half < block:
        pairs = values.reshape(-1, 2, half)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1)
        half *= 2
    return values.reshape(shape) / np.float32(np.sqrt(block))
