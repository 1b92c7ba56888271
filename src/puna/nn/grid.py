"""Linear layers that learn on a grid that they are on already: `GridLinear`, `keep_grid`.

What GPTQ chose together, integers and scales, would not outlive choosing the scales anew. So weights are
counted in steps of their grid, and an integer changes when its weight has gone half a step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from puna.errors import ConfigError
from puna.models.checkpoint import Checkpoint
from puna.models.config import ModelConfig
from puna.models.packed import PackedAs
from puna.nn.fake_quantized import Int4Linear, fake_quantize, fake_tokens, straight_through
from puna.nn.model import Transformer
from puna.nn.rounding import GROUP, HIGH, LOW

__all__ = ["GridLinear", "keep_grid"]


class GridLinear(Int4Linear):
    """A linear layer with 4-bit weights whose groups have scales already, and 8-bit tokens.

    Attributes:
        weight: in steps of the grid ``[out, in]``: 2.6 counts as 3.
        growth: how much scales have grown, ``[out, ceil(in / 32)]``: a growth of 1 moves the largest weight
            of a group by one step, so that one learning rate suits both.
        scales: those that were there, ``[out, ceil(in / 32)]``.
    """

    def __init__(self, config: ModelConfig, q: Tensor, scales: Tensor) -> None:
        """Begin on the grid.

        Args:
            config: the model's, without adaptors.
            q: integers ``[out, in]``.
            scales: ``[out, ceil(in / 32)]``.
        """
        rows, columns = q.shape
        with torch.device("meta"):
            super().__init__(columns, rows, config)
        self.weight = nn.Parameter(q.float())
        self.growth = nn.Parameter(torch.zeros_like(scales, dtype=torch.float32))
        self.scales: Tensor
        self.register_buffer("scales", scales.float(), persistent=False)

    def quantized(self) -> tuple[Tensor, Tensor]:
        """Integers ``[out, in]`` and scales ``[out, ceil(in / 32)]``, both float32."""
        return self.weight.detach().round().clamp(LOW, HIGH), self._grown().detach().half().float()

    def floats(self) -> Tensor:
        """The weights before rounding, ``[out, in]``."""
        return self._times_scales(self.weight, self._grown())

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        q, scales = self.quantized()
        weight = self._times_scales(straight_through(self.weight, q), straight_through(self._grown(), scales))
        return linear(fake_tokens(x), weight)

    def _times_scales(self, steps: Tensor, scales: Tensor) -> Tensor:
        groups = torch.unflatten(pad(steps, (0, -self.in_features % GROUP)), 1, (-1, GROUP))
        floats: Tensor = (groups * scales[..., None]).flatten(1)[:, : self.in_features]
        return floats

    def _grown(self) -> Tensor:
        grown: Tensor = self.scales * (1 + self.growth / -LOW)
        return grown


def keep_grid(model: Transformer, start: Checkpoint) -> dict[str, nn.Parameter]:
    """Let a model compute as its quantized form does, and go on from that form's integers and scales.

    Args:
        model: loaded from `start`, changed in place.
        start: a quantized model, as `puna quantize` makes them, without adaptors.

    Returns:
        What is to learn, by name: integers, scales, and norms. Embedding and head stay what they are.

    Raises:
        ConfigError: a matrix of the blocks is not 4-bit in groups of 32.
        CheckpointError: a tensor is damaged.
    """
    fake_quantize(model)
    model.requires_grad_(False)
    packed = PackedAs(start, "auto")
    for name, old in list(model.named_modules()):
        if name.endswith("norm"):
            old.weight.requires_grad_(True)
        if not isinstance(old, Int4Linear):
            continue
        integers = packed.packed(f"{name}.weight").to_integers()
        if integers is None or not packed.dtypes[f"{name}.weight"].startswith("int4"):
            raise ConfigError(
                f"{start.path}: {name} is not 4-bit in groups of 32; training begins with a model that "
                "`puna quantize` made"
            )
        q, scales = (torch.from_numpy(part) for part in integers)
        model.set_submodule(name, GridLinear(model.config, q, scales).to(old.weight.device))
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
