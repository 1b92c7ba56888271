"""How much memory a quantization needs: `memory_estimate`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from puna.models.config import ModelConfig
from puna.quantize.layers import BATCH_TOKENS
from puna.quantize.network import LOGIT_ROWS, WIDE_ROWS
from puna.quantize.recipe import Recipe

__all__ = ["memory_estimate"]


def memory_estimate(config: ModelConfig, dtypes: Mapping[str, str], recipe: Recipe) -> int:
    """About how many bytes `puna.quantize.run.quantize` needs at its peak.

    Python and torch are not counted, nor what is mapped from files and the system can have back.

    Args:
        config: the model's.
        dtypes: how its tensors are stored, as `puna.models.checkpoint.Checkpoint` has them.
        recipe: how it is quantized.
    """
    needs = [_rounding(config)]
    if recipe.method != "ptq":
        needs.append(_solving(config, recipe))
    if recipe.rotates and recipe.rotation_steps:
        # R1, its gradient and what a Cayley step makes of them, in float64, and what the allocator kept.
        cayley = 16 * 8 * config.dim**2
        needs.append(_halves(config, dtypes) + max(_backward(config, recipe.length), cayley))
    if recipe.distills:
        tables = (1 if config.tied_embeddings else 2) * config.vocab_size * config.dim
        # Scales, their growth, its gradient and two moments; of one layer the integers and the weights.
        scales = 20 * (config.n_parameters - tables) // 32
        learning = _backward(config, recipe.length) + 8 * _layer_weights(config)
        needs.append(_halves(config, dtypes) + tables + scales + learning)
    return max(needs)


def _rounding(config: ModelConfig) -> int:
    """The largest matrix and its integers, both as float32, and those as bytes."""
    return (4 + 4 + 1) * config.dim * max(config.vocab_size, config.ffn_dim)


def _solving(config: ModelConfig, recipe: Recipe) -> int:
    """The stream, a layer and its integers; and what solving its widest matrix needs, or what feeds that."""
    stream = recipe.sequences * recipe.length * config.dim
    widest = max(config.ffn_dim, config.dim)
    runs = 2 if recipe.follows_original else 1
    layer = _layer_weights(config)
    # The Hessian, and four like it.
    solving = config.dim * widest + (5 + recipe.follows_original + 2 * recipe.act_order) * widest**2
    # A sum and what is added to it, and of the tokens of a batch what they are before, while and after they
    # are rounded.
    batch = recipe.length * min(recipe.sequences, max(1, BATCH_TOKENS // recipe.length))
    feeding = (2 + recipe.follows_original) * widest**2 + batch * (5 * config.ffn_dim + config.dim)
    return 4 * (runs * (stream + layer) + max(solving, feeding)) + layer


def _halves(config: ModelConfig, dtypes: Mapping[str, str]) -> int:
    """The model as bfloat16, as far as its file has it in another form."""
    shapes = config.tensor_shapes().items()
    return sum(2 * math.prod(shape) for name, shape in shapes if len(shape) == 2 and dtypes[name] != "BF16")


def _layer_weights(config: ModelConfig) -> int:
    shapes = config.tensor_shapes()
    return sum(math.prod(s) for name, s in shapes.items() if ".layers.0." in name and len(s) == 2)


def _backward(config: ModelConfig, length: int) -> int:
    """What the backward pass of one sequence holds: the stream, one layer, and some rows of logits."""
    layer = length * (16 * config.dim + 12 * config.ffn_dim)
    logits = 4 * LOGIT_ROWS * config.vocab_size + WIDE_ROWS * config.dim
    return 4 * (config.n_layers * length * config.dim + layer + logits)
