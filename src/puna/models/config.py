"""What a Llama is, in numbers: one small dataclass that every part of Puna reads.

Start at `ModelConfig`. `from_hf`, `from_gguf` and `from_meta` translate the three spellings (in
`config_hf.py`, `config_gguf.py` and `config_meta.py`); a key that they neither use nor deliberately
ignore is an error, so that no unknown variation of the architecture runs as if it were a plain Llama.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from puna.errors import CheckpointError

__all__ = ["ModelConfig", "RopeScaling", "as_float"]

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
        has_down_rotation: what a down projection reads is multiplied by a normalized Hadamard matrix first,
            in blocks of `rotation_block`.
        has_output_rotation: a matrix ``[dim, dim]`` stands between the last norm and the head.
        lora_rank: rank of the adaptors that every linear layer of a block has, 0 where there are none.
        lora_scale: what they add is multiplied by.
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
    has_down_rotation: bool = False
    has_output_rotation: bool = False
    lora_rank: int = 0
    lora_scale: float = 1.0

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
                    f"model config: `{name}` must be a whole number from 1 to {limit}, got {value!r:.100}"
                )
        if not isinstance(self.n_kv_heads, int) or self.n_kv_heads < 1 or self.n_heads % self.n_kv_heads:
            raise CheckpointError(
                f"model config: `n_heads` ({self.n_heads}) must be a multiple of `n_kv_heads`, "
                f"got {self.n_kv_heads!r:.100}"
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
        self._validate_additions()
        return self

    def _validate_additions(self) -> None:
        for name in ("has_down_rotation", "has_output_rotation"):
            if not isinstance(getattr(self, name), bool):
                raise CheckpointError(
                    f"model config: `{name}` must be true or false, got {getattr(self, name)!r:.100}"
                )
        if type(self.lora_rank) is not int or not 0 <= self.lora_rank <= self.dim:
            raise CheckpointError(
                f"model config: `lora_rank` must be a whole number from 0 to `dim` ({self.dim}), "
                f"got {self.lora_rank!r:.100}"
            )
        if not math.isfinite(self.lora_scale):
            raise CheckpointError(f"model config: `lora_scale` must be finite, got {self.lora_scale!r}")

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
                f"{scaling.high_freq_factor!r} and {scaling.original_context!r:.100}"
            )

    @property
    def additions(self) -> tuple[str, ...]:
        """What this model has that a plain Llama does not, in words; other formats have no place for it."""
        return (
            *(("a rotation before its down projections",) if self.has_down_rotation else ()),
            *(("a matrix between its last norm and its head",) if self.has_output_rotation else ()),
            *((f"adaptors of rank {self.lora_rank}",) if self.lora_rank else ()),
        )

    @property
    def rotation_block(self) -> int:
        """Size of the Hadamard matrix before a down projection: the largest power of two in `ffn_dim`.

        All of `ffn_dim` in Meta's models (8192). Elsewhere the rotation is block-diagonal.
        """
        return self.ffn_dim & -self.ffn_dim

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
            shapes |= self._linear(layer + "self_attn.q_proj", q_dim, self.dim)
            shapes |= self._linear(layer + "self_attn.k_proj", kv_dim, self.dim)
            shapes |= self._linear(layer + "self_attn.v_proj", kv_dim, self.dim)
            shapes |= self._linear(layer + "self_attn.o_proj", self.dim, q_dim)
            shapes[layer + "post_attention_layernorm.weight"] = (self.dim,)
            shapes |= self._linear(layer + "mlp.gate_proj", self.ffn_dim, self.dim)
            shapes |= self._linear(layer + "mlp.up_proj", self.ffn_dim, self.dim)
            shapes |= self._linear(layer + "mlp.down_proj", self.dim, self.ffn_dim)
        shapes["model.norm.weight"] = (self.dim,)
        if self.has_output_rotation:
            shapes["model.norm.rotation.weight"] = (self.dim, self.dim)
        if not self.tied_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, self.dim)
        return shapes

    def _linear(self, name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (rows, columns)}
        if self.lora_rank:
            shapes[f"{name}.lora_A.weight"] = (self.lora_rank, columns)
            shapes[f"{name}.lora_B.weight"] = (rows, self.lora_rank)
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
        from puna.models.config_hf import read_hf

        return read_hf(raw).validate()

    def to_hf(self) -> dict[str, Any]:
        """The same config as a Hugging Face ``config.json`` that transformers loads.

        Raises:
            CheckpointError: the model has `additions`, which transformers would leave out.
        """
        from puna.models.config_hf import write_hf

        return write_hf(self)

    def to_puna(self) -> dict[str, Any]:
        """The same as `to_hf`, with keys for the `additions` where there are any; `from_hf` reads it."""
        from puna.models.config_hf import write_puna

        return write_puna(self)

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
        from puna.models.config_gguf import read_gguf

        return read_gguf(metadata, rope_factors).validate()

    @classmethod
    def from_meta(cls, raw: Mapping[str, Any], *, vocab_size: int, tied_embeddings: bool) -> ModelConfig:
        """Read the contents of Meta's ``params.json``.

        Args:
            raw: the parsed JSON object.
            vocab_size: rows of the embedding in the weights; Llama 2's file gives -1 for it.
            tied_embeddings: whether the weights have no head of their own.

        Returns:
            A validated config. What the file does not say (context, factor of the rotary scaling) is
            chosen by the release, see `puna.models.config_meta`.

        Raises:
            CheckpointError: a model with vision, a missing or unknown key, or a value out of range.
        """
        from puna.models.config_meta import read_meta

        return read_meta(raw, vocab_size, tied_embeddings).validate()

    def to_meta(self, *, is_quantized: bool = False) -> dict[str, Any]:
        """The same config as Meta's ``params.json``.

        Args:
            is_quantized: as the official quantized models have it, whose readers take 8192 tokens of context
                whatever `max_seq_len` is.

        Raises:
            CheckpointError: that file cannot say it: it has no key for the width of a head, the context or
                the kind of rotary scaling, which follow from the release.
        """
        from puna.models.config_meta import write_meta

        return write_meta(self, is_quantized)


def _llama3_frequency(frequency: float, scaling: RopeScaling) -> float:
    wavelength = 2 * math.pi / frequency
    if wavelength < scaling.original_context / scaling.high_freq_factor:
        return frequency
    if wavelength > scaling.original_context / scaling.low_freq_factor:
        return frequency / scaling.factor
    spread = scaling.high_freq_factor - scaling.low_freq_factor
    smooth = (scaling.original_context / wavelength - scaling.low_freq_factor) / spread
    return (1 - smooth) * frequency / scaling.factor + smooth * frequency


def as_float(key: str, value: Any) -> float:
    """A setting that must be a number, as a float.

    Raises:
        CheckpointError: it is no number, or too large for a float.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError(f"model config: `{key}` must be a number, got {value!r:.100}")
    try:
        return float(value)
    except OverflowError as error:
        raise CheckpointError(f"model config: `{key}` must be a number that fits a float") from error
