"""Meta's spelling of a config: `read_meta` and `write_meta`, for ``params.json``.

The file leaves out what the reference program has built in, so some of it is chosen by the release:

========================================  ==============  =======================================
``params.json`` has                       release         what follows
========================================  ==============  =======================================
``use_scaled_rope``, ``dim`` under 4096   3.2 (1B, 3B)    131072 tokens, rotary factor 32
``use_scaled_rope``                       3.1, 3.3        131072 tokens, rotary factor 8
``quantization_args``                     3.2, quantized  8192 tokens, otherwise as 3.2
``rope_theta`` 500000                     3               8192 tokens
``rope_theta`` 1000000                    Code Llama      16384 tokens
no ``rope_theta``                         2               4096 tokens, base 10000
========================================  ==============  =======================================

Source: https://github.com/meta-llama/llama-models, models/llama3/args.py and model.py. Its
``apply_scaling`` has the factor 8 for every release; the published configs of 3.2 say 32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from puna.errors import CheckpointError
from puna.models.config import ModelConfig, RopeScaling, as_float

__all__ = ["read_meta", "write_meta"]

_SCALED_CONTEXT = 131_072
_CONTEXT_BY_THETA = {500_000.0: 8_192, 1_000_000.0: 16_384}
_LLAMA2_CONTEXT, _LLAMA2_THETA = 4_096, 10_000.0
_SMALL_DIM = 4_096
_MAX_MULTIPLE_OF = 65_536
_MULTIPLE_OF = 256
_QUANTIZED_CONTEXT = 8_192
_SCHEME, _GROUP = "int4_weight_int8_dynamic_activation", 32
# Sizes of buffers in the reference program; they do not change the model.
_IGNORED = frozenset({"max_batch_size", "max_seq_len", "model_parallel_size"})


def read_meta(raw: Mapping[str, Any], vocab_size: int, tied_embeddings: bool) -> ModelConfig:
    """Read a ``params.json``, see `ModelConfig.from_meta`; the result is not validated yet."""
    params = {key: value for key, value in raw.items() if key not in _IGNORED}
    _refuse_vision(params)
    dim, n_heads = _whole(params, "dim"), _whole(params, "n_heads")
    if n_heads < 1 or dim % n_heads:
        raise CheckpointError(
            f"params.json: `dim` ({dim!r:.50}) must be a multiple of `n_heads`, got {n_heads!r:.50}"
        )
    listed = _whole(params, "vocab_size", -1)
    if listed not in (-1, vocab_size):
        raise CheckpointError(
            f"params.json: `vocab_size` must be the embedding's {vocab_size} rows, or -1, got {listed!r:.50}"
        )
    theta = as_float("rope_theta", params.pop("rope_theta", _LLAMA2_THETA))
    scaled = params.pop("use_scaled_rope", False)
    if not isinstance(scaled, bool):
        raise CheckpointError(f"params.json: `use_scaled_rope` must be true or false, got {scaled!r:.50}")
    quantization = _quantization(params)
    context = _SCALED_CONTEXT if scaled else _CONTEXT_BY_THETA.get(theta, _LLAMA2_CONTEXT)
    scaling = RopeScaling(kind="llama3", factor=32.0 if dim < _SMALL_DIM else 8.0)
    config = ModelConfig(
        dim=dim,
        n_layers=_whole(params, "n_layers"),
        n_heads=n_heads,
        n_kv_heads=_whole(params, "n_kv_heads", n_heads),
        head_dim=dim // n_heads,
        ffn_dim=_ffn_dim(params, dim),
        vocab_size=vocab_size,
        max_seq_len=context if quantization is None else _QUANTIZED_CONTEXT,
        rope_theta=theta,
        rope_scaling=scaling if scaled else None,
        norm_eps=as_float("norm_eps", params.pop("norm_eps", 1e-5)),
        tied_embeddings=tied_embeddings,
        **(quantization or {}),
    )
    if config.has_down_rotation and config.rotation_block != config.ffn_dim:
        raise CheckpointError(
            "params.json: `spinquant` needs a feed-forward width that is a power of two, as other readers of "
            f"this layout rotate it whole, got {config.ffn_dim}"
        )
    if params:
        raise CheckpointError(
            f"params.json: unknown keys {sorted(params)!r:.200}; Puna does not run a model whose config it "
            "does not understand in full"
        )
    return config


def write_meta(config: ModelConfig, is_quantized: bool = False) -> dict[str, Any]:
    """Make a ``params.json``, see `ModelConfig.to_meta`."""
    multiple = math.gcd(config.ffn_dim, _MULTIPLE_OF)
    params: dict[str, Any] = {
        "dim": config.dim,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "vocab_size": config.vocab_size,
        "ffn_dim_multiplier": _multiplier(config, multiple),
        "multiple_of": multiple,
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "use_scaled_rope": config.rope_scaling is not None,
    }
    if is_quantized:
        spinquant = {"spinquant": True} if config.has_down_rotation else {}
        params["quantization_args"] = {"scheme": _SCHEME, "group_size": _GROUP, **spinquant}
    if is_quantized and config.lora_rank:
        params["lora_args"] = {"rank": config.lora_rank, "scale": config.lora_scale}
    again = read_meta(params, config.vocab_size, config.tied_embeddings)
    for field in fields(config):
        wanted, got = getattr(config, field.name), getattr(again, field.name)
        if wanted != got and not (is_quantized and field.name == "max_seq_len"):
            raise CheckpointError(
                f"Meta's params.json cannot say `{field.name}` {wanted!r:.200}: its readers would take "
                f"{got!r:.200}; write Hugging Face's layout instead"
            )
    return params


def _multiplier(config: ModelConfig, multiple: int) -> float:
    """The shortest number that gives the width of the feed-forward layer."""
    exact = (config.ffn_dim + 0.5) / int(8 * config.dim / 3)
    for digits in range(1, 16):
        factor = round(exact, digits)
        found = {"ffn_dim_multiplier": factor, "multiple_of": multiple}
        if factor > 0 and _ffn_dim(found, config.dim) == config.ffn_dim:
            return factor
    return exact


def _quantization(params: dict[str, Any]) -> dict[str, Any] | None:
    """What the settings of a quantized model add to the architecture; None where there are none."""
    if "quantization_args" not in params and "lora_args" not in params:
        return None
    settings, lora = _settings(params, "quantization_args"), _settings(params, "lora_args")
    for key, needed in (("scheme", _SCHEME), ("group_size", _GROUP)):
        got = settings.pop(key, None)
        if got != needed or isinstance(got, float):
            raise CheckpointError(
                f"params.json: `{key}` of `quantization_args` must be {needed!r}, got {got!r:.100}"
            )
    added: dict[str, Any] = {"has_down_rotation": settings.pop("spinquant", False)}
    if lora:
        added["lora_rank"] = _whole(lora, "rank")
        added["lora_scale"] = as_float("scale", lora.pop("scale", None))
    if settings or lora:
        raise CheckpointError(
            f"params.json: unknown keys {sorted({*settings, *lora})!r:.200} in `quantization_args` or "
            "`lora_args`"
        )
    return added


def _settings(params: dict[str, Any], key: str) -> dict[str, Any]:
    value = params.pop(key, None)
    if value is not None and not isinstance(value, dict):
        raise CheckpointError(f"params.json: `{key}` must be an object, got {value!r:.50}")
    return dict(value or {})


def _refuse_vision(params: Mapping[str, Any]) -> None:
    found = sorted(key for key in params if key.startswith("vision_"))
    if found:
        raise CheckpointError(
            f"params.json: `{found[0]}` says that this is a model with vision, which is not run yet; use "
            "the text model of the same generation"
        )


def _ffn_dim(params: dict[str, Any], dim: int) -> int:
    """Two thirds of four times the width, times the multiplier, rounded up to a whole number of steps."""
    multiple = _whole(params, "multiple_of", 256)
    factor = params.pop("ffn_dim_multiplier", None)
    factor = 1.0 if factor is None else as_float("ffn_dim_multiplier", factor)
    if not 1 <= multiple <= _MAX_MULTIPLE_OF or not 0 < factor <= 16:
        raise CheckpointError(
            f"params.json: `multiple_of` must be from 1 to {_MAX_MULTIPLE_OF} and `ffn_dim_multiplier` above "
            f"0 and at most 16, got {multiple!r:.50} and {factor!r:.50}"
        )
    if not 1 <= dim <= 2**32:
        raise CheckpointError(f"params.json: `dim` must be at least 1 and fit 32 bits, got {dim!r:.50}")
    wanted = int(factor * int(8 * dim / 3))
    return -(-wanted // multiple) * multiple


def _whole(params: dict[str, Any], key: str, default: int | None = None) -> int:
    value = params.pop(key, None)
    value = default if value is None else value
    if type(value) is not int:
        raise CheckpointError(f"params.json: `{key}` must be a whole number, got {value!r:.50}")
    return value
