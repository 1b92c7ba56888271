"""Puna's models and requests as the native library takes them."""

from __future__ import annotations

import numpy as np

from puna import _native
from puna.engine.request import Request
from puna.models.packed import PackedModel

__all__ = ["formats_of", "new_cache", "new_model", "new_sampler"]


def new_model(model: PackedModel) -> _native.Model:
    """The weights, where they lie."""
    matrices = {name: (matrix.format, matrix.data) for name, matrix in model.matrices.items()}
    return _native.Model(_config(model), {**matrices, **model.norms}, model.config.tied_embeddings)


def formats_of(model: PackedModel) -> list[str]:
    """The format of every matrix."""
    return [matrix.format for matrix in model.matrices.values()]


def new_cache(model: PackedModel, n_blocks: int, cache: str) -> _native.Cache:
    """A cache for a model, in the format that `puna.models.cache.cache_format` gave."""
    return _native.Cache(_config(model), n_blocks, cache)


def new_sampler(request: Request) -> _native.Sampler:
    """What picks a request's tokens."""
    p = request.params
    sampler = _native.Sampler(
        temperature=p.temperature,
        top_k=p.top_k,
        top_p=p.top_p,
        min_p=p.min_p,
        repetition_penalty=p.repetition_penalty,
        frequency_penalty=p.frequency_penalty,
        presence_penalty=p.presence_penalty,
        seed=request.seed,
        top_logprobs=-1 if p.logprobs is None else p.logprobs,
        logit_bias=list(p.logit_bias.items()),
    )
    sampler.observe(np.asarray(request.prompt, np.int32))
    return sampler


def _config(model: PackedModel) -> _native.ModelConfig:
    c = model.config
    return _native.ModelConfig(
        dim=c.dim,
        n_layers=c.n_layers,
        n_heads=c.n_heads,
        n_kv_heads=c.n_kv_heads,
        head_dim=c.head_dim,
        ffn_dim=c.ffn_dim,
        vocab_size=c.vocab_size,
        max_seq_len=c.max_seq_len,
        norm_eps=c.norm_eps,
        rope_frequencies=c.rope_frequencies(),
        has_down_rotation=c.has_down_rotation,
        has_output_rotation=c.has_output_rotation,
        lora_rank=c.lora_rank,
        lora_scale=c.lora_scale,
    )
