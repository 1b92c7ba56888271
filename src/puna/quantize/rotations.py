"""The rotations of SpinQuant, and a checkpoint turned by them: `Rotations`, `RotatedCheckpoint`.

Orthogonal matrices between the matrices of a Llama leave what it computes as it is and spread outliers over
all columns, which rounding then loses less on. Row vectors are turned by ``x R``:

==========  ================================================================  ===========================
R1          the residual stream                                               merged into all matrices
R2          the values of a head, one matrix a layer for all of its heads     merged into v_proj and o_proj
R4          what down_proj reads, see `puna.nn.model.hadamard`                      computed by the engine
==========  ================================================================  ===========================

The gains of norms go into the matrices that read them, as R1 does not pass a gain. In a model with a tied
head that of the last norm cannot: it becomes the matrix ``R1^T diag(g) R1`` behind the norm, and embedding
and head stay one.

Source: Liu et al. 2024, https://arxiv.org/abs/2405.16406, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from puna.models.checkpoint import Checkpoint, Vocabulary
from puna.models.checkpoint import Tensor as StoredTensor
from puna.models.config import ModelConfig
from puna.nn.model import hadamard
from puna.quantize.hadamard_matrix import hadamard_matrix

__all__ = ["RotatedCheckpoint", "Rotations", "random_rotations"]

_ROWS = 4096  # of an embedding that are turned at a time


@dataclass(frozen=True, slots=True)
class Rotations:
    """R1 and R2 of a model.

    Attributes:
        stream: R1, orthogonal ``[dim, dim]``, float64.
        values: R2 of each layer, orthogonal ``[layers, head_dim, head_dim]``, float64.
    """

    stream: Tensor
    values: Tensor


def random_rotations(config: ModelConfig, seed: int) -> Rotations:
    """Draw rotations: Hadamard matrices with random signs, where there are none random orthogonal ones.

    Args:
        config: the architecture.
        seed: the same one gives the same rotations.
    """
    generator = torch.Generator().manual_seed(seed)
    stream = _random_rotation(config.dim, generator)
    values = [_random_rotation(config.head_dim, generator) for _ in range(config.n_layers)]
    return Rotations(stream, torch.stack(values))


def _random_rotation(n: int, generator: torch.Generator) -> Tensor:
    regular = hadamard_matrix(n)
    if regular is not None:
        signs = 2 * torch.randint(0, 2, (n, 1), generator=generator).double() - 1
        return signs * regular
    # Of a QR factorisation the one whose R has a positive diagonal is uniform over the orthogonal matrices.
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    uniform: Tensor = q * r.diagonal().sign()
    return uniform


class RotatedCheckpoint:
    """A checkpoint with rotations merged into its matrices; implements `puna.models.checkpoint.Checkpoint`.

    Tensors are turned in float64 when they are asked for, one at a time.

    Attributes:
        path: the source's.
        kind: the source's.
        config: the source's, with the rotations that the engine computes.
        dtypes: ``F32`` for every tensor.
    """

    def __init__(self, source: Checkpoint, rotations: Rotations) -> None:
        """Look at a checkpoint.

        Args:
            source: any that Puna reads, without rotations of its own.
            rotations: of its shape.
        """
        self.path, self.kind = source.path, source.kind
        self.config = replace(
            source.config, has_down_rotation=True, has_output_rotation=source.config.tied_embeddings
        )
        self.dtypes = dict.fromkeys(self.config.tensor_shapes(), "F32")
        self._source, self._rotations = source, rotations

    def vocabulary(self) -> Vocabulary:
        """The source's."""
        return self._source.vocabulary()

    def tensor(self, name: str) -> StoredTensor:
        """The named tensor with its rotations, float32."""
        values = self.turned(name).float().contiguous().numpy()
        return StoredTensor(name, "F32", values.shape, values.view(np.uint8))

    def turned(self, name: str) -> Tensor:
        """The named tensor with gains and rotations, float64; of the vocabulary float32."""
        turn, part = self._rotations.stream, name.removesuffix(".weight").rpartition(".")[2]
        match part:
            case "embed_tokens":
                return self._rows_turned(name)
            case "lm_head":
                return self._rows_turned(name, "model.norm.weight")
            case "norm" | "input_layernorm" | "post_attention_layernorm":
                return torch.ones(self.config.dim, dtype=torch.float64)
        turned: Tensor
        if part == "rotation":
            turned = turn.T @ (self._read("model.norm.weight")[:, None] * turn)
            return turned
        layer = name.split(".self_attn.")[0].split(".mlp.")[0]
        weight, heads = self._read(name), self._rotations.values[int(layer.rpartition(".")[2])]
        if part == "o_proj":
            turned = turn.T @ (torch.unflatten(weight, 1, (-1, len(heads))) @ heads).flatten(1)
        elif part == "down_proj":
            turned = hadamard(turn.T @ weight, self.config.rotation_block)
        else:
            norm = "post_attention_layernorm" if part in ("gate_proj", "up_proj") else "input_layernorm"
            turned = weight * self._read(f"{layer}.{norm}.weight") @ turn
        if part == "v_proj":
            turned = (heads.T @ torch.unflatten(turned, 0, (-1, len(heads)))).flatten(0, 1)
        return turned

    def _rows_turned(self, name: str, gain: str = "") -> Tensor:
        """A table of the vocabulary, some rows at a time: its float64 would be gigabytes."""
        table = torch.from_numpy(self._source.tensor(name).to_float32())
        turn = self._rotations.stream
        if gain:
            turn = self._read(gain)[:, None] * turn
        for rows in torch.split(table, _ROWS):
            rows.copy_(rows.double() @ turn)
        return table

    def _read(self, name: str) -> Tensor:
        return torch.from_numpy(self._source.tensor(name).to_float32()).double()
