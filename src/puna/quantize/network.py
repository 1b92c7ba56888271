"""Parts of networks that learn on a model held as bfloat16: what they share.

Only what is learned has gradients; layers are computed again in the backward pass, and logits in parts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint as computed_again

from puna.models.checkpoint import Checkpoint
from puna.nn.checkpoint import from_checkpoint
from puna.nn.fake_quantized import fake_tokens
from puna.nn.model import Transformer

__all__ = ["LOGIT_ROWS", "Half", "Rounded", "frozen_network", "hold_as_halves", "mean_over_tokens"]

LOGIT_ROWS = 256
"""Rows of logits that are in memory at a time."""


class Half(nn.Module):
    """A linear layer or an embedding that is held as bfloat16 and computes in float32."""

    def __init__(self, part: nn.Linear | nn.Embedding) -> None:
        """Take a part's weight."""
        super().__init__()
        self.weight, self.is_table = part.weight, isinstance(part, nn.Embedding)

    def forward(self, x: Tensor) -> Tensor:
        """What the part computes."""
        return self.weight[x].float() if self.is_table else linear(x, self.weight.float())


class Rounded(nn.Module):
    """Activations rounded to 8 bits a token."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape ``[..., columns]`` to the same."""
        return fake_tokens(x)


def frozen_network(checkpoint: Checkpoint) -> Transformer:
    """A model as bfloat16 without gradients; its norms are float32.

    Raises:
        CheckpointError: a tensor is damaged.
    """
    model = from_checkpoint(checkpoint, dtype=torch.bfloat16).requires_grad_(False)
    for name, module in model.named_modules():
        if name.endswith("norm"):
            gain = torch.from_numpy(checkpoint.tensor(f"{name}.weight").to_float32())
            module.weight = nn.Parameter(gain, requires_grad=False)
    model.checkpoint_activations()
    return model


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
