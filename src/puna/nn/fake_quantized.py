"""Layers that compute what the native engine computes with quantized weights, in floats and with gradients.

The scheme of the Llama 3.2 quantized models: 4-bit weights in groups of 32 and 8-bit tokens in the
blocks, 8 bits a row for embedding and head. Gradients pass straight through the rounding.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from puna.models.config import ModelConfig
from puna.nn.model import Linear, RotatedRMSNorm, Transformer
from puna.nn.rounding import DEFAULT_RULE, GROUP, group_scales, round_groups, round_rows

__all__ = [
    "Bf16Linear",
    "Int4Linear",
    "Int8Embedding",
    "Int8Linear",
    "RoundedInputLinear",
    "as_kind",
    "fake_quantize",
    "fake_tokens",
    "straight_through",
]

Kind = TypeVar("Kind", bound=Linear)


def straight_through(plain: Tensor, rounded: Tensor) -> Tensor:
    """The rounded values forwards, to the bit, and the gradient of the plain ones backwards."""
    return rounded.to(plain.dtype) + (plain - plain.detach())


def fake_tokens(x: Tensor) -> Tensor:
    """Round activations to 8 bits a token, with a scale and a zero point each.

    Args:
        x: ``[..., columns]``.

    Returns:
        The same shape and dtype: ``(q - zero) * scale`` as `quantize_row` of ``csrc/kernels`` has them.
    """
    return straight_through(x, _rounded_tokens(x.detach().float()))


def _rounded_tokens(x: Tensor) -> Tensor:
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1.1920929e-7)
    zero = (-128 - low / scale).round().clamp(-128, 127)
    q = ((x * (1 / scale)).round() + zero).clamp(-128, 127)
    return (q - zero) * scale


class Bf16Linear(nn.Linear):
    """A linear layer with weights and tokens rounded to bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        return linear(
            straight_through(x, x.detach().bfloat16()),
            straight_through(self.weight, self.weight.detach().bfloat16()),
        )


class Int4Linear(Linear):
    """A linear layer with 4-bit weights in groups of 32 and 8-bit tokens; its adaptor is bfloat16.

    Attributes:
        rule: how scales are chosen, see `puna.nn.rounding.RULES`.
    """

    rule: str = DEFAULT_RULE

    def quantized(self) -> tuple[Tensor, Tensor]:
        """Integers ``[out, in]`` and scales ``[out, ceil(in / 32)]``, both float32."""
        weight = self.weight.detach()
        scales = group_scales(weight, self.rule)
        return round_groups(weight, scales), scales

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        q, scales = self.quantized()
        rounded = q * scales.repeat_interleave(GROUP, 1)[:, : q.shape[1]]
        return self.adapt(linear(fake_tokens(x), straight_through(self.weight, rounded)), x)


class RoundedInputLinear(Linear):
    """A linear layer with 8-bit tokens; its adaptor is bfloat16, and reads them before they are rounded."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        return self.adapt(linear(fake_tokens(x), self.weight), x)


class Int8Linear(nn.Linear):
    """A linear layer with 8-bit weights, a scale a row, and 8-bit tokens."""

    def quantized(self) -> tuple[Tensor, Tensor]:
        """Integers ``[out, in]`` and scales ``[out, 1]``, both float32."""
        return round_rows(self.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        q, scales = self.quantized()
        return linear(fake_tokens(x), straight_through(self.weight, q * scales))


class Int8Embedding(nn.Embedding):
    """An embedding of 8 bits with a scale a row."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids ``[...]`` to ``[..., dim]``."""
        rows = embedding(tokens, self.weight)
        q, scales = round_rows(rows.detach().flatten(0, -2))
        return straight_through(rows, (q * scales).reshape(rows.shape))


def fake_quantize(model: Transformer, rule: str = DEFAULT_RULE) -> None:
    """Let a model compute as its quantized form will, in place; its parameters stay what they are.

    Args:
        model: any; float32 matches the engine to within the rounding of sums.
        rule: how scales of the blocks are chosen, see `puna.nn.rounding.RULES`.
    """
    with torch.device("meta"):
        head = Int8Linear(model.config.dim, model.config.vocab_size, bias=False)
        table = Int8Embedding(model.config.vocab_size, model.config.dim)
    head.weight, table.weight = model.lm_head.weight, model.model.embed_tokens.weight
    model.lm_head, model.model.embed_tokens = head, table
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            assert isinstance(part, nn.Module)
            for name, old in list(part.named_children()):
                assert isinstance(old, Linear)
                new = as_kind(Int4Linear, old, model.config)
                new.rule = rule
                setattr(part, name, new)
    norm = model.model.norm
    if isinstance(norm, RotatedRMSNorm):
        norm.rotation = _bf16(norm.rotation)


def as_kind(kind: type[Kind], old: Linear, config: ModelConfig) -> Kind:
    """A layer of another kind with the same parameters; its adaptor, where it has one, is bfloat16."""
    with torch.device("meta"):
        new = kind(old.in_features, old.out_features, config)
    new.weight = old.weight
    if new.lora_rank:
        new.lora_A, new.lora_B = _bf16(old.lora_A), _bf16(old.lora_B)
    return new


def _bf16(old: nn.Linear) -> Bf16Linear:
    with torch.device("meta"):
        new = Bf16Linear(old.in_features, old.out_features, bias=False)
    new.weight = old.weight
    return new
