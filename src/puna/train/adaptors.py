"""Low-rank adaptors (LoRA) on every linear layer of the blocks: `add_adaptors`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from puna.errors import ConfigError
from puna.models.config import ModelConfig
from puna.nn.model import Transformer

__all__ = ["adaptor_parameters", "add_adaptors", "check_adaptable"]


def add_adaptors(model: Transformer, *, rank: int = 16, scale: float = 2.0, seed: int = 0) -> Transformer:
    """A model with the same parameters and adaptors that add nothing yet.

    Every linear layer of a block then computes ``W x + scale * B (A x)``. A is random, so that B, which is
    zero, has a gradient.

    Args:
        model: any without adaptors; its parameters are shared, not copied. The new one is not
            fake-quantized, see `puna.nn.fake_quantized.fake_quantize`.
        rank: of the matrices.
        scale: what adaptors add is multiplied by; 2 is what the Llama 3.2 quantized models have.
        seed: of the random matrices.

    Raises:
        ConfigError: the model has adaptors already, or the rank is out of range.
    """
    check_adaptable(model.config, rank)
    weight = model.model.embed_tokens.weight
    with torch.device("meta"):
        made = Transformer(replace(model.config, lora_rank=rank, lora_scale=scale))
    made.load_state_dict(model.state_dict(keep_vars=True), strict=False, assign=True)
    made.tie_weights()
    generator = torch.Generator(weight.device).manual_seed(seed)
    for name, parameter in list(made.named_parameters()):
        if "lora_" not in name:
            continue
        value = torch.zeros(parameter.shape, dtype=weight.dtype, device=weight.device)
        if "lora_A" in name:
            value.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
        layer, _, last = name.rpartition(".")
        setattr(made.get_submodule(layer), last, nn.Parameter(value))
    made.checkpoint_activations(model.model.checkpoints_activations)
    return made


def check_adaptable(config: ModelConfig, rank: int) -> None:
    """Say whether `add_adaptors` will take a model.

    Raises:
        ConfigError: it has adaptors already, or the rank is out of range.
    """
    if config.lora_rank:
        raise ConfigError(
            f"the model has adaptors of rank {config.lora_rank} already; give the one without them"
        )
    if not 1 <= rank <= config.dim:
        raise ConfigError(f"`rank` must be from 1 to the model's width of {config.dim}, got {rank}")


def adaptor_parameters(model: Transformer) -> dict[str, nn.Parameter]:
    """The parameters of a model's adaptors, by name."""
    return {name: p for name, p in model.named_parameters() if "lora_" in name}
