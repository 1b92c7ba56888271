"""Parts of networks that learn on a model held as bfloat16: what they share.

Only what is learned has gradients; layers are computed again in the backward pass, and logits in parts. A
weight is float32 only while it is multiplied, and where the file has bfloat16 it stays in the mapped file: a
large model then needs little memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint as computed_again

from puna.models.checkpoint import Checkpoint
from puna.models.checkpoint import Tensor as StoredTensor
from puna.nn.fake_quantized import fake_tokens
from puna.nn.model import Transformer
from puna.quantize.mapped import mapped

__all__ = [
    "LOGIT_ROWS",
    "WIDE_ROWS",
    "Half",
    "Rounded",
    "frozen_network",
    "hold_as_halves",
    "mean_over_tokens",
    "product",
]

LOGIT_ROWS = 256
"""Rows of logits that are in memory at a time."""
WIDE_ROWS = 8192
"""Rows of a weight that are float32 at a time."""


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scales: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scales)
        out = x.new_empty(*x.shape[:-1], len(weight))
        for part, rows in _wide_rows(weight, scales):
            out[..., part] = linear(x, rows)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, scales = ctx.saved_tensors
        total = gradient.new_zeros(*gradient.shape[:-1], weight.shape[1])
        for part, rows in _wide_rows(weight, scales):
            total += gradient[..., part] @ rows
        return total, None, None


def _wide_rows(weight: Tensor, scales: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(weight), WIDE_ROWS):
        part = slice(start, start + WIDE_ROWS)
        rows = weight[part].float()
        yield part, rows if scales is None else rows * scales[part]


def product(x: Tensor, weight: Tensor, scales: Tensor | None = None) -> Tensor:
    """``x W^T`` in float32 of a W without a gradient, of which some rows at a time are float32.

    Args:
        x: ``[..., in]``.
        weight: ``[out, in]`` of any type.
        scales: ``[out, 1]``, which W is multiplied by; None: by nothing.

    Returns:
        ``[..., out]``.
    """
    out: Tensor = _Product.apply(x, weight, scales)  # type: ignore[no-untyped-call]
    return out


class Half(nn.Module):
    """A linear layer or an embedding that is held as bfloat16 and computes in float32."""

    def __init__(self, part: nn.Linear | nn.Embedding) -> None:
        """Take a part's weight."""
        super().__init__()
        self.weight, self.is_table = part.weight, isinstance(part, nn.Embedding)

    def forward(self, x: Tensor) -> Tensor:
        """What the part computes."""
        return self.weight[x].float() if self.is_table else product(x, self.weight)


class Rounded(nn.Module):
    """Activations rounded to 8 bits a token."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape ``[..., columns]`` to the same."""
        return fake_tokens(x)


def frozen_network(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> Transformer:
    """A model as bfloat16 without gradients; its norms are float32.

    Raises:
        CheckpointError: a tensor is damaged.
    """
    with torch.device("meta"):
        model = Transformer(checkpoint.config).requires_grad_(False)
    weights = {}
    for name in checkpoint.config.tensor_shapes():
        stored = checkpoint.tensor(name)
        is_gain = len(stored.shape) == 1
        weight = torch.from_numpy(stored.to_float32()) if is_gain else _halves(stored)
        weights[name] = weight.to(device)
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    model.load_state_dict(weights, assign=True)
    model.tie_weights()  # each of the two got a parameter of its own
    model.checkpoint_activations()
    return model


def _halves(stored: StoredTensor) -> Tensor:
    if stored.dtype != "BF16":
        return torch.from_numpy(stored.to_float32()).bfloat16()
    return mapped(stored.data.view(np.int16)).view(torch.bfloat16).reshape(stored.shape)


def hold_as_halves(model: Transformer) -> None:
    """Let every linear layer and embedding that is left compute in float32, in place."""
    for module in list(model.modules()):
        for name, part in module.named_children():
            if isinstance(part, nn.Linear | nn.Embedding):
                setattr(module, name, Half(part))


def mean_over_tokens(loss: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """A loss that is a mean over tokens, of which only a part is computed at a time, forwards and backwards.

    Args:
        loss: from some rows of each to the sum of their losses.
        *rows: ``[tokens, ...]`` each.
    """
    parts = zip(*(torch.split(each, LOGIT_ROWS) for each in rows), strict=True)
    sums = [computed_again(loss, *part, use_reentrant=False) for part in parts]
    return torch.stack(sums).sum() / len(rows[0])
