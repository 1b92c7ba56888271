"""What a Llama is, in numbers: one small dataclass that every part of Puna reads.

Start at `ModelConfig`. `from_hf` and `from_gguf` translate the two common spellings; a key that
neither uses nor deliberately ignores is an error, so that no unknown variation of the
architecture runs as if it were a plain Llama.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from puna.errors import CheckpointError

__all__ = ["ModelConfig", "RopeScaling"]

# Limits far above any Llama (405B: dim 16384, 126 layers) and far below what would overflow a size.
_MAX = {
    "dim": 65_536,
    "n_layers": 1_024,
    "n_heads": 1_024,
    "head_dim": 512,
    "ffn_dim": 262_144,
    "vocab_size": 1_048_576,
    "max_seq_len": 16_777_216,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than those of pretraining.

    Attributes:
        kind: ``llama3`` (Llama 3.1 and later), ``linear``, or ``factors`` (one divisor a frequency,
            as a GGUF file stores it).
        factor: the stretch of the low frequencies.
        low_freq_factor: wavelengths over ``original_context / low_freq_factor`` are stretched in full.
        high_freq_factor: wavelengths under ``original_context / high_freq_factor`` are left alone.
        original_context: the context of pretraining, in tokens.
        factors: for ``factors``: ``head_dim / 2`` divisors.
    """

    kind: Literal["llama3", "linear", "factors"]
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192
    factors: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The architecture of one Llama text model.

    Attributes:
        dim: width of the residual stream.
        n_layers: number of blocks.
        n_heads: query heads a block.
        n_kv_heads: key and value heads a block; ``n_heads`` is a multiple of it (GQA).
        head_dim: width of one head; even.
        ffn_dim: width of the feed-forward layer.
        vocab_size: rows of the embedding.
        max_seq_len: longest context the model was made for, in tokens.
        rope_theta: base of the rotary frequencies.
        rope_scaling: how those are stretched, if at all.
        norm_eps: added to the mean square in RMSNorm.
        tied_embeddings: the output head is the embedding matrix.
    """

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    max_seq_len: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tied_embeddings: bool = False

    def validate(self) -> ModelConfig:
        """Check every field and the relations between them.

        Returns:
            The config itself, so that a constructor can end with it.

        Raises:
            CheckpointError: a field is out of range; the message names it, its value and the limit.
        """
        for name, limit in _MAX.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
                raise CheckpointError(
                    f"model config: `{name}` must be a whole number from 1 to {limit}, got {value!r}"
                )
        if not isinstance(self.n_kv_heads, int) or self.n_kv_heads < 1 or self.n_heads % self.n_kv_heads:
            raise CheckpointError(
                f"model config: `n_heads` ({self.n_heads}) must be a multiple of `n_kv_heads`, "
                f"got {self.n_kv_heads!r}"
            )
        if self.head_dim % 2:
            raise CheckpointError(f"model config: `head_dim` must be even, got {self.head_dim}")
        # A base under 1 would turn later pairs faster, and a tiny one overflows.
        if not 1 <= self.rope_theta < math.inf:
            raise CheckpointError(
                f"model config: `rope_theta` must be at least 1 and finite, got {self.rope_theta!r}"
            )
        if not 0 < self.norm_eps < 1:
            raise CheckpointError(f"model config: `norm_eps` must be between 0 and 1, got {self.norm_eps!r}")
        if self.rope_scaling is not None:
            self._validate_scaling(self.rope_scaling)
        return self

    def _validate_scaling(self, scaling: RopeScaling) -> None:
        if scaling.kind == "factors":
            ok = len(scaling.factors) == self.head_dim // 2
            ok = ok and all(math.isfinite(f) and f > 0 for f in scaling.factors)
            if not ok:
                raise CheckpointError(
                    f"model config: rope scaling needs {self.head_dim // 2} factors above 0, "
                    f"got {len(scaling.factors)}"
                )
        elif not (math.isfinite(scaling.factor) and scaling.factor >= 1):
            raise CheckpointError(f"model config: rope `factor` must be at least 1, got {scaling.factor!r}")
        elif scaling.kind == "llama3" and not (
            0 < scaling.low_freq_factor < scaling.high_freq_factor < math.inf
            and scaling.original_context >= 1
        ):
            raise CheckpointError(
                "model config: rope scaling needs 0 < low_freq_factor < high_freq_factor and an "
                f"original context of at least 1, got {scaling.low_freq_factor!r}, "
                f"{scaling.high_freq_factor!r} and {scaling.original_context!r}"
            )

    @property
    def n_parameters(self) -> int:
        """Number of weights, a tied head counted once."""
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor a checkpoint of this model has, by its Hugging Face name, with its shape.

        Returns:
            Name to ``(out, in)`` for matrices and ``(dim,)`` for norms, in the order of the forward pass.
        """
        q_dim, kv_dim = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, self.dim)}
        for i in range(self.n_layers):
            layer = f"model.layers.{i}."
            shapes[layer + "input_layernorm.weight"] = (self.dim,)
            shapes[layer + "self_attn.q_proj.weight"] = (q_dim, self.dim)
            shapes[layer + "self_attn.k_proj.weight"] = (kv_dim, self.dim)
            shapes[layer + "self_attn.v_proj.weight"] = (kv_dim, self.dim)
            shapes[layer + "self_attn.o_proj.weight"] = (self.dim, q_dim)
            shapes[layer + "post_attention_layernorm.weight"] = (self.dim,)
            shapes[layer + "mlp.gate_proj.weight"] = (self.ffn_dim, self.dim)
            shapes[layer + "mlp.up_proj.weight"] = (self.ffn_dim, self.dim)
            shapes[layer + "mlp.down_proj.weight"] = (self.dim, self.ffn_dim)
        shapes["model.norm.weight"] = (self.dim,)
        if not self.tied_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, self.dim)
        return shapes

    def rope_frequencies(self) -> list[float]:
        """Rotary frequencies, in radians a token, scaling applied; computed in double precision.

        Returns:
            ``head_dim / 2`` numbers, the fastest first.

        Source: Llama 3.1 reference, ``apply_scaling``; the same formula as transformers' ``llama3`` type.
        """
        half = self.head_dim // 2
        plain = [self.rope_theta ** (-i / half) for i in range(half)]
        scaling = self.rope_scaling
        if scaling is None:
            return plain
        if scaling.kind == "factors":
            return [f / divisor for f, divisor in zip(plain, scaling.factors, strict=True)]
        if scaling.kind == "linear":
            return [f / scaling.factor for f in plain]
        return [_llama3_frequency(f, scaling) for f in plain]

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Read the contents of a Hugging Face ``config.json``.

        Args:
            raw: the parsed JSON object; ``model_type`` must be ``llama``.

        Returns:
            A validated config.

        Raises:
            CheckpointError: not a Llama, a missing or unknown key, or a value out of range.
        """
        return _HfReader(raw).read().validate()

    def to_hf(self) -> dict[str, Any]:
        """The same config as a Hugging Face ``config.json`` that transformers loads."""
        raw: dict[str, Any] = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.dim,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.ffn_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_seq_len,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.norm_eps,
            "tie_word_embeddings": self.tied_embeddings,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
        }
        if self.rope_scaling is not None:
            raw["rope_scaling"] = _scaling_to_hf(self.rope_scaling)
        return raw

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], rope_factors: tuple[float, ...] = ()) -> ModelConfig:
        """Read the ``llama.*`` keys of a GGUF file.

        Args:
            metadata: every key of the file.
            rope_factors: contents of the tensor ``rope_freqs.weight``, empty where the file has none.

        Returns:
            A validated config. ``tied_embeddings`` is True; the reader clears it where the file has a head.

        Raises:
            CheckpointError: not a Llama, a missing or unknown key, or a value out of range.
        """
        return _read_gguf(metadata, rope_factors).validate()


def _llama3_frequency(frequency: float, scaling: RopeScaling) -> float:
    wavelength = 2 * math.pi / frequency
    if wavelength < scaling.original_context / scaling.high_freq_factor:
        return frequency
    if wavelength > scaling.original_context / scaling.low_freq_factor:
        return frequency / scaling.factor
    spread = scaling.high_freq_factor - scaling.low_freq_factor
    smooth = (scaling.original_context / wavelength - scaling.low_freq_factor) / spread
    return (1 - smooth) * frequency / scaling.factor + smooth * frequency


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


# Keys of config.json that do not change the forward pass of a Llama.
_HF_IGNORED = frozenset(
    {
        "_name_or_path", "architectures", "attention_dropout", "auto_map", "bos_token_id", "dtype",
        "eos_token_id", "initializer_range", "is_llama_config", "pad_token_id", "pretraining_tp", "puna",
        "rope_interleaved", "torch_dtype", "transformers.js_config", "transformers_version",
        "unk_token_id", "use_cache",
    }
)  # fmt: skip
# Keys that would change it: only the plain value is a Llama.
_HF_FIXED = {
    "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
    "quantization_config": None, "partial_rotary_factor": 1.0,
}  # fmt: skip


class _HfReader:
    """Takes keys out of a ``config.json`` one by one and complains about what is left."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = {key: value for key, value in raw.items() if key not in _HF_IGNORED}

    def read(self) -> ModelConfig:
        if self._raw.get("model_type") != "llama":
            raise CheckpointError(
                f"config.json: `model_type` must be 'llama', got {self._raw.get('model_type')!r}; "
                "Puna runs the Llama architecture only"
            )
        for key, plain in _HF_FIXED.items():
            value = self._raw.pop(key, plain)
            if value != plain:
                raise CheckpointError(f"config.json: `{key}` must be {plain!r}, got {value!r}")
        dim, n_heads = self._int("hidden_size"), self._int("num_attention_heads")
        if n_heads < 1:
            raise CheckpointError(f"config.json: `num_attention_heads` must be at least 1, got {n_heads}")
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
        )
        if self._raw:
            raise CheckpointError(
                f"config.json: unknown keys {sorted(self._raw)}; Puna does not run a model whose config it "
                "does not understand in full"
            )
        return config

    def _rope(self) -> tuple[float, RopeScaling | None]:
        # transformers 5 writes `rope_parameters`; before it, `rope_theta` and `rope_scaling` stood apart.
        merged = self._object("rope_parameters")
        scaling = self._object("rope_scaling")
        theta = merged.pop("rope_theta", None)
        theta = self._float("rope_theta", 10_000.0) if theta is None else _number("rope_theta", theta)
        self._raw.pop("rope_theta", None)
        return theta, _scaling_from_hf({**scaling, **merged})

    def _object(self, key: str) -> dict[str, Any]:
        value = self._raw.pop(key, None)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise CheckpointError(f"config.json: `{key}` must be an object, got {value!r}")
        return dict(value)

    def _int(self, key: str, default: int | None = None) -> int:
        value = self._raw.pop(key, None)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int):
            raise CheckpointError(f"config.json: `{key}` must be a whole number, got {value!r}")
        return value

    def _float(self, key: str, default: float) -> float:
        value = self._raw.pop(key, None)
        return _number(key, default if value is None else value)

    def _bool(self, key: str, default: bool) -> bool:
        value = self._raw.pop(key, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"config.json: `{key}` must be true or false, got {value!r}")
        return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError(f"model config: `{key}` must be a number, got {value!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise CheckpointError(f"model config: `{key}` must be a number that fits a float") from error


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
        raise CheckpointError(f"config.json: rope type must be one of {sorted(known)}, got {kind!r}")
    fields: dict[str, Any] = {}
    for key, field in known[kind].items():
        if key not in raw:
            raise CheckpointError(f"config.json: rope type {kind!r} needs `{key}`")
        value = raw.pop(key)
        if field == "factors":
            if not isinstance(value, list):
                raise CheckpointError(f"config.json: rope `factors` must be a list, got {value!r}")
            fields[field] = tuple(_number(key, item) for item in value)
        elif field == "original_context":
            if type(value) is not int:
                raise CheckpointError(f"config.json: rope `{key}` must be a whole number, got {value!r}")
            fields[field] = value
        else:
            fields[field] = _number(key, value)
    if raw:
        raise CheckpointError(f"config.json: unknown rope keys {sorted(raw)} for type {kind!r}")
    return None if kind == "default" else RopeScaling(kind=kind, **fields)


# Keys under `llama.` that repeat what others say or only help other programs.
_GGUF_IGNORED = frozenset(
    {"vocab_size", "attention.key_length", "attention.value_length", "rope.dimension_count"}
)


def _read_gguf(metadata: Mapping[str, Any], rope_factors: tuple[float, ...]) -> ModelConfig:
    if metadata.get("general.architecture") != "llama":
        raise CheckpointError(
            f"GGUF: `general.architecture` must be 'llama', got {metadata.get('general.architecture')!r}; "
            "Puna runs the Llama architecture only"
        )
    raw = {k.removeprefix("llama."): v for k, v in metadata.items() if k.startswith("llama.")}

    def whole(key: str, default: int | None = None) -> int:
        value = raw.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise CheckpointError(f"GGUF: `llama.{key}` must be a whole number, got {value!r}")
        return value

    dim, n_heads = whole("embedding_length"), whole("attention.head_count")
    if n_heads < 1:
        raise CheckpointError(f"GGUF: `llama.attention.head_count` must be at least 1, got {n_heads}")
    head_dim = whole("attention.key_length", dim // n_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if whole(key, head_dim) != head_dim:
            raise CheckpointError(f"GGUF: `llama.{key}` must equal the head width {head_dim}")
    scaling = RopeScaling(kind="factors", factors=rope_factors) if rope_factors else None
    if "rope.scaling.type" in raw:
        kind, factor = raw.pop("rope.scaling.type"), raw.pop("rope.scaling.factor", 1.0)
        if kind == "linear":
            if scaling is not None:
                raise CheckpointError("GGUF: rope scaling must be 'linear' or by factors, got both")
            scaling = RopeScaling(kind="linear", factor=_number("rope.scaling.factor", factor))
        elif kind != "none":
            raise CheckpointError(f"GGUF: rope scaling must be 'linear' or 'none', got {kind!r}")
    vocabulary = metadata.get("tokenizer.ggml.tokens")
    config = ModelConfig(
        dim=dim,
        n_layers=whole("block_count"),
        n_heads=n_heads,
        n_kv_heads=whole("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        ffn_dim=whole("feed_forward_length"),
        vocab_size=whole("vocab_size", len(vocabulary) if isinstance(vocabulary, list) else None),
        max_seq_len=whole("context_length"),
        rope_theta=_number("llama.rope.freq_base", raw.pop("rope.freq_base", 10_000.0)),
        rope_scaling=scaling,
        norm_eps=_number(
            "llama.attention.layer_norm_rms_epsilon", raw.pop("attention.layer_norm_rms_epsilon", 1e-5)
        ),
        tied_embeddings=True,
    )
    unknown = sorted(set(raw) - _GGUF_IGNORED)
    if unknown:
        raise CheckpointError(
            f"GGUF: unknown keys {['llama.' + key for key in unknown]}; Puna does not run a model whose "
            "config it does not understand in full"
        )
    return config
