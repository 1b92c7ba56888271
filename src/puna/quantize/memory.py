"""How much memory a quantization needs: `memory_estimate`."""

from __future__ import annotations

import math

from puna.models.config import ModelConfig
from puna.quantize.network import LOGIT_ROWS
from puna.quantize.recipe import Recipe

__all__ = ["memory_estimate"]


def memory_estimate(config: ModelConfig, recipe: Recipe) -> int:
    """About how many bytes `puna.quantize.run.quantize` needs at its peak, beside Python and torch."""
    widest = max(config.ffn_dim, config.dim)
    if recipe.method == "ptq":
        return 4 * 4 * max(config.vocab_size, config.ffn_dim) * config.dim
    layer = _layer_weights(config)
    runs = 2 if recipe.follows_original else 1
    stream = recipe.sequences * recipe.length * config.dim
    table = config.vocab_size * config.dim
    solving = 4 * (runs * (stream + layer) + layer + 4 * widest * widest + 2 * table)
    learning = 0
    if recipe.rotates and recipe.rotation_steps:
        learning = 2 * config.n_parameters + _backward(config, recipe.length)
        learning += 8 * 6 * config.dim**2  # R1, its gradient and the Cayley step, in float64
    distilling = 0
    if recipe.distills:
        # The original in bfloat16; the integers; scales, their growth, its gradient and two moments.
        distilling = 2 * config.n_parameters + config.n_parameters + 20 * config.n_parameters // 32
        distilling += _backward(config, recipe.length)
    return max(solving, learning, distilling)


def _layer_weights(config: ModelConfig) -> int:
    shapes = config.tensor_shapes()
    return sum(math.prod(s) for name, s in shapes.items() if ".layers.0." in name and len(s) == 2)


def _backward(config: ModelConfig, length: int) -> int:
    """What the backward pass of one sequence holds: the stream, one layer, and some rows of logits."""
    layer = length * (16 * config.dim + 12 * config.ffn_dim) + 3 * _layer_weights(config)
    logits = 4 * LOGIT_ROWS * config.vocab_size + 2 * config.vocab_size * config.dim
    return 4 * (config.n_layers * length * config.dim + max(layer, logits))
