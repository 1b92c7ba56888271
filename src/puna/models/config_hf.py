"""The Hugging Face spelling of a config: `read_hf` and `write_hf`, for ``config.json``.

`write_puna` adds keys for what transformers does not have: a program that does not know them, an older
version of this one included, must refuse the file, as it would compute something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from puna.errors import CheckpointError
from puna.models.config import ModelConfig, RopeScaling, as_float

__all__ = ["read_hf", "write_hf", "write_puna"]

# Keys of config.json that do not change the forward pass of a Llama.
_HF_IGNORED = frozenset(
    {
        "_name_or_path", "architectures", "attention_dropout", "auto_map", "bos_token_id",
        "chunk_size_feed_forward", "dtype", "eos_token_id", "id2label", "initializer_range",
        "is_llama_config", "label2id", "output_attentions", "output_hidden_states", "pad_token_id",
        "pretraining_tp", "problem_type", "puna", "return_dict", "rope_interleaved", "tokenizer_class",
        "torch_dtype", "transformers.js_config", "transformers_version", "unk_token_id", "use_cache",
    }
)  # fmt: skip
# Keys that would change it: only the plain value is a Llama.
_HF_FIXED = {
    "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
    "is_encoder_decoder": False, "quantization_config": None, "partial_rotary_factor": 1.0,
}  # fmt: skip


def read_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """Read a ``config.json``, see `ModelConfig.from_hf`; the result is not validated yet."""
    return _HfReader(raw).read()


def write_hf(config: ModelConfig) -> dict[str, Any]:
    """Make a ``config.json``, see `ModelConfig.to_hf`."""
    if config.additions:
        raise CheckpointError(
            f"Hugging Face's config.json cannot say that a model has {' and '.join(config.additions)}; keep "
            "it as a Puna checkpoint"
        )
    return _plain(config)


def write_puna(config: ModelConfig) -> dict[str, Any]:
    """Make a ``config.json``, see `ModelConfig.to_puna`."""
    raw = _plain(config)
    if config.has_down_rotation:
        raw["has_down_rotation"] = True
    if config.has_output_rotation:
        raw["has_output_rotation"] = True
    if config.lora_rank:
        raw |= {"lora_rank": config.lora_rank, "lora_scale": config.lora_scale}
    return raw


def _plain(config: ModelConfig) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_seq_len,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }
    if config.rope_scaling is not None:
        raw["rope_scaling"] = _scaling_to_hf(config.rope_scaling)
    return raw


def _scaling_to_hf(scaling: RopeScaling) -> dict[str, Any]:
    if scaling.kind == "llama3":
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    # Not a type that transformers knows: only Puna writes and reads it, for GGUF files that carry factors.
    return {"rope_type": "factors", "factors": list(scaling.factors)}


class _HfReader:
    """Takes keys out of a ``config.json`` one by one and complains about what is left."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = {key: value for key, value in raw.items() if key not in _HF_IGNORED}

    def read(self) -> ModelConfig:
        if self._raw.get("model_type") != "llama":
            raise CheckpointError(
                f"config.json: `model_type` must be 'llama', got {self._raw.get('model_type')!r:.100}; "
                "Puna runs the Llama architecture only"
            )
        for key, plain in _HF_FIXED.items():
            value = self._raw.pop(key, plain)
            if value != plain:
                raise CheckpointError(f"config.json: `{key}` must be {plain!r}, got {value!r:.100}")
        dim, n_heads = self._int("hidden_size"), self._int("num_attention_heads")
        if n_heads < 1:
            raise CheckpointError(
                f"config.json: `num_attention_heads` must be at least 1, got {n_heads!r:.50}"
            )
        theta, scaling = self._rope()
        config = ModelConfig(
            dim=dim,
            n_layers=self._int("num_hidden_layers"),
            n_heads=n_heads,
            n_kv_heads=self._int("num_key_value_heads", n_heads),
            head_dim=self._int("head_dim", dim // n_heads),
            ffn_dim=self._int("intermediate_size"),
            vocab_size=self._int("vocab_size"),
            max_seq_len=self._int("max_position_embeddings", 2048),
            rope_theta=theta,
            rope_scaling=scaling,
            norm_eps=self._float("rms_norm_eps", 1e-6),
            tied_embeddings=self._bool("tie_word_embeddings", False),
            has_down_rotation=self._bool("has_down_rotation", False),
            has_output_rotation=self._bool("has_output_rotation", False),
            lora_rank=self._int("lora_rank", 0),
            lora_scale=self._float("lora_scale", 1.0),
        )
        if self._raw:
            raise CheckpointError(
                f"config.json: unknown keys {sorted(self._raw)!r:.200}; Puna does not run a model whose "
                "config it does not understand in full"
            )
        return config

    def _rope(self) -> tuple[float, RopeScaling | None]:
        # transformers 5 writes `rope_parameters`; before it, `rope_theta` and `rope_scaling` stood apart.
        merged = self._object("rope_parameters")
        scaling = self._object("rope_scaling")
        theta = merged.pop("rope_theta", None)
        theta = self._float("rope_theta", 10_000.0) if theta is None else as_float("rope_theta", theta)
        self._raw.pop("rope_theta", None)
        return theta, _scaling_from_hf({**scaling, **merged})

    def _object(self, key: str) -> dict[str, Any]:
        value = self._raw.pop(key, None)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise CheckpointError(f"config.json: `{key}` must be an object, got {value!r:.100}")
        return dict(value)

    def _int(self, key: str, default: int | None = None) -> int:
        value = self._raw.pop(key, None)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int):
            raise CheckpointError(f"config.json: `{key}` must be a whole number, got {value!r:.100}")
        return value

    def _float(self, key: str, default: float) -> float:
        value = self._raw.pop(key, None)
        return as_float(key, default if value is None else value)

    def _bool(self, key: str, default: bool) -> bool:
        value = self._raw.pop(key, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"config.json: `{key}` must be true or false, got {value!r:.100}")
        return value


def _scaling_from_hf(raw: dict[str, Any]) -> RopeScaling | None:
    kind = raw.pop("rope_type", raw.pop("type", "default"))
    raw.pop("type", None)
    known = {
        "llama3": {
            "factor": "factor",
            "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            "original_max_position_embeddings": "original_context",
        },
        "linear": {"factor": "factor"},
        "factors": {"factors": "factors"},
        "default": {},
    }
    if kind not in list(known):  # a list: what the file says may not be hashable
        raise CheckpointError(f"config.json: rope type must be one of {sorted(known)}, got {kind!r:.100}")
    fields: dict[str, Any] = {}
    for key, field in known[kind].items():
        if key not in raw:
            raise CheckpointError(f"config.json: rope type {kind!r} needs `{key}`")
        value = raw.pop(key)
        if field == "factors":
            if not isinstance(value, list):
                raise CheckpointError(f"config.json: rope `factors` must be a list, got {value!r:.100}")
            fields[field] = tuple(as_float(key, item) for item in value)
        elif field == "original_context":
            if type(value) is not int:
                raise CheckpointError(f"config.json: rope `{key}` must be a whole number, got {value!r:.100}")
            fields[field] = value
        else:
            fields[field] = as_float(key, value)
    if raw:
        raise CheckpointError(f"config.json: unknown rope keys {sorted(raw)!r:.200} for type {kind!r}")
    return None if kind == "default" else RopeScaling(kind=kind, **fields)
