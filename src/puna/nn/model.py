"""The readable Llama: every text model of the family in one file, to be read from top to bottom.

Modules have the names of Hugging Face's checkpoints, so the state dict's keys are those of
`ModelConfig.tensor_shapes`. Shapes are written with these letters:

==  =======================  ==  ==========================
B   sequences of a batch     H   query heads
T   new tokens of each       K   key and value heads
S   positions looked at      D   width of a head, `head_dim`
E   residual width, `dim`    V   vocabulary
==  =======================  ==  ==========================
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint

from puna.models.config import ModelConfig

__all__ = [
    "Attention",
    "FeedForward",
    "KeyValueCache",
    "Layer",
    "Linear",
    "RMSNorm",
    "RotatedRMSNorm",
    "Transformer",
    "Trunk",
    "hadamard",
    "rotary_tables",
    "rotate",
]

_INITIAL_STD = 0.02


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class RMSNorm(nn.Module):
    """``x / rms(x) * weight``, computed in float32 at least."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis: any shape ``[..., E]`` to the same."""
        wide = _at_least_float32(x)
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale).to(x.dtype) * self.weight


class RotatedRMSNorm(RMSNorm):
    """A norm and a matrix behind it.

    After rotating the residual stream the last norm's gain is no longer one number a dimension; as a matrix
    of its own it need not be multiplied into the head, which can then stay one with the embedding.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__(dim, eps)
        self.rotation = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., E]`` to the same."""
        out: Tensor = self.rotation(super().forward(x))
        return out


def hadamard(x: Tensor, block: int) -> Tensor:
    """Multiply each `block` neighbours of the last axis by the normalized Hadamard matrix.

    A fast Walsh-Hadamard transform in the natural (Sylvester's) order: sums and differences of values 1, 2,
    4, ... apart. The matrix is symmetric and its own inverse. In float32 the bits are the native engine's.

    Args:
        x: any shape ``[..., n]``, n a multiple of `block`.
        block: a power of two.

    Returns:
        The same shape and dtype, computed in that dtype.
    """
    shape = x.shape
    x = x.reshape(*shape[:-1], -1, block) * block**-0.5
    apart = 1
    while apart < block:
        low, high = x.reshape(*shape[:-1], -1, 2, apart).unbind(-2)
        x = torch.stack((low + high, low - high), -2).flatten(-3)
        apart *= 2
    return x.reshape(shape)


class Linear(nn.Linear):
    """A linear layer of a block, with an adaptor where the config has them: ``W x + scale * B (A x)``.

    Attributes:
        lora_A: ``[rank, in]``; with `lora_B` only where there are adaptors.
        lora_B: ``[out, rank]``.
        lora_rank: 0 where there are none.
        lora_scale: what they add is multiplied by.
    """

    def __init__(self, columns: int, rows: int, config: ModelConfig) -> None:
        super().__init__(columns, rows, bias=False)
        self.lora_rank, self.lora_scale = config.lora_rank, config.lora_scale
        if config.lora_rank:
            self.lora_A = nn.Linear(columns, config.lora_rank, bias=False)
            self.lora_B = nn.Linear(config.lora_rank, rows, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        return self.adapt(super().forward(x), x)

    def adapt(self, y: Tensor, x: Tensor) -> Tensor:
        """Add the adaptor's part of input `x` to an output `y`."""
        if not self.lora_rank:
            return y
        out: Tensor = y + self.lora_scale * self.lora_B(self.lora_A(x))
        return out


def rotary_tables(config: ModelConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, ``[T, D / 2]`` each, for positions ``[T]``."""
    # At position 100,000 a float32 angle is off by 0.004; one device type has no float64.
    precise = torch.float32 if positions.device.type == "mps" else torch.float64
    frequencies = torch.tensor(config.rope_frequencies(), dtype=precise, device=positions.device)
    angles = positions.to(precise)[:, None] * frequencies
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair of a head, one of its first half and one of its second: ``[B, heads, T, D]``."""
    cos, sin = rotary
    first, second = _at_least_float32(x).chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


class KeyValueCache:
    """Keys and values of the tokens so far, in room made beforehand, the same number for every sequence.

    Attributes:
        keys: ``[layers, B, K, capacity, D]``.
        values: the same.
        length: how many positions are filled; a tensor, so that a compiled model need not be compiled anew
            for every token.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        batch: int = 1,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make room.

        Args:
            config: the architecture.
            batch: sequences.
            capacity: positions of each; more is an error of torch's at the forward that needs it.
            dtype: of keys and values.
            device: where they lie.
        """
        shape = (config.n_layers, batch, config.n_kv_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.length = torch.zeros((), dtype=torch.int64, device=device)

    def visible_from(self, positions: Tensor) -> Tensor:
        """Which positions each new token sees: bool ``[T, capacity]``."""
        return torch.arange(self.keys.shape[3], device=positions.device) <= positions[:, None]

    def write(self, layer: int, positions: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put in new keys and values, ``[B, K, T, D]``, and return all of the layer's."""
        self.keys[layer].index_copy_(2, positions, k.to(self.keys.dtype))
        self.values[layer].index_copy_(2, positions, v.to(self.values.dtype))
        return self.keys[layer].to(k.dtype), self.values[layer].to(v.dtype)


class Attention(nn.Module):
    """Causal attention with rotary positions; several query heads share a key head (GQA)."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.index, self.head_dim = index, config.head_dim
        q_dim, kv_dim = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = Linear(config.dim, q_dim, config)
        self.k_proj = Linear(config.dim, kv_dim, config)
        self.v_proj = Linear(config.dim, kv_dim, config)
        self.o_proj = Linear(q_dim, config.dim, config)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        rotary: tuple[Tensor, Tensor],
        cache: KeyValueCache | None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """``[B, T, E]`` to the same; without a cache, T is the whole text."""
        out: Tensor = self.o_proj(self.mix(x, positions, rotary, cache, mask))
        return out

    def mix(
        self,
        x: Tensor,
        positions: Tensor,
        rotary: tuple[Tensor, Tensor],
        cache: KeyValueCache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend, all but the output projection: ``[B, T, E]`` to ``[B, T, H * D]``."""
        # The number of heads is left open: with tensor parallelism this process has a share of them.
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, rotary), rotate(k, rotary)
        if cache is None:
            mixed = scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
            )
        else:
            k, v = cache.write(self.index, positions, k, v)
            mask = cache.visible_from(positions)
            mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return mixed.transpose(1, 2).flatten(-2)


class FeedForward(nn.Module):
    """``down(silu(gate(x)) * up(x))``; where the config says so, what `down` reads is rotated first."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rotation_block = config.rotation_block if config.has_down_rotation else 1
        self.gate_proj = Linear(config.dim, config.ffn_dim, config)
        self.up_proj = Linear(config.dim, config.ffn_dim, config)
        self.down_proj = Linear(config.ffn_dim, config.dim, config)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, E]`` to the same."""
        out: Tensor = self.down_proj(self.activate(x))
        return out

    def activate(self, x: Tensor) -> Tensor:
        """All but the down projection: ``[B, T, E]`` to ``[B, T, ffn_dim]``."""
        out: Tensor = silu(self.gate_proj(x)) * self.up_proj(x)
        return out if self.rotation_block == 1 else hadamard(out, self.rotation_block)


class Layer(nn.Module):
    """One block: attention, then feed-forward, each on the normalised stream and added to it."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.self_attn = Attention(config, index)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        rotary: tuple[Tensor, Tensor],
        cache: KeyValueCache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """``[B, T, E]`` to the same."""
        x = x + self.self_attn(self.input_layernorm(x), positions, rotary, cache, mask)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


def _within_segments(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores so that each token sees what stands before it in its text, ``[B, 1, T, T]``."""
    # Positions go on over a text's beginning: rotary attention knows only how far two tokens are apart.
    same = (segments[:, None, :, None] == segments[:, None, None, :]).tril()
    # As floats, which every layer keeps for the backward pass: of booleans each would make its own.
    return torch.zeros(same.shape, dtype=dtype, device=same.device).masked_fill_(~same, -torch.inf)


class Trunk(nn.Module):
    """Everything below the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoints_activations = False
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.n_layers))
        norm = RotatedRMSNorm if config.has_output_rotation else RMSNorm
        self.norm = norm(config.dim, config.norm_eps)

    def forward(
        self, tokens: Tensor, cache: KeyValueCache | None = None, segments: Tensor | None = None
    ) -> Tensor:
        """Token ids ``[B, T]`` to final hidden states ``[B, T, E]``."""
        assert cache is None or segments is None, "packed rows are for training, which has no cache"
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        if cache is not None:
            positions = positions + cache.length
        rotary = rotary_tables(self.config, positions)
        x: Tensor = self.embed_tokens(tokens)
        mask = None if segments is None else _within_segments(segments, x.dtype)
        for layer in self.layers:
            if self.checkpoints_activations and torch.is_grad_enabled():
                x = checkpoint(layer, x, positions, rotary, cache, mask, use_reentrant=False)
            else:
                x = layer(x, positions, rotary, cache, mask)
        if cache is not None:
            cache.length += tokens.shape[1]
        out: Tensor = self.norm(x)
        return out


class Transformer(nn.Module):
    """A Llama.

    Attributes:
        config: the architecture.
        model: the trunk, see `Trunk`.
        lm_head: the head; its weight is the embedding's where the config ties them.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Make a model with random weights.

        Args:
            config: the architecture. Make it under ``torch.device("meta")`` to allocate nothing yet.
        """
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.tie_weights()
        self.initialize()

    def forward(
        self, tokens: Tensor, cache: KeyValueCache | None = None, segments: Tensor | None = None
    ) -> Tensor:
        """Predict the next token at every place.

        Args:
            tokens: ids ``[B, T]``, int64.
            cache: holds the tokens before these, and takes these in; None where there are none.
            segments: which text of its row a token belongs to, ``[B, T]``, where rows are packed with
                several that must not see one another; None: one text a row. Not together with a cache.

        Returns:
            Logits ``[B, T, V]`` in the dtype of the weights.
        """
        logits: Tensor = self.lm_head(self.model(tokens, cache, segments))
        return logits

    def tie_weights(self) -> None:
        """Make head and embedding one parameter where the config says so; again after replacing either."""
        if self.config.tied_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw new weights: norms one, matrices normal, those that write to the stream smaller with depth.

        Adaptors begin by adding nothing, and the matrix before the head by changing nothing.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            if name.endswith("lora_B.weight"):
                parameter.zero_()
                continue
            if name.endswith("norm.rotation.weight"):
                nn.init.eye_(parameter)
                continue
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            depth = 2 * self.config.n_layers if writes else 1
            parameter.normal_(0.0, _INITIAL_STD / depth**0.5)

    def checkpoint_activations(self, is_on: bool = True) -> None:
        """Whether each layer is computed again in the backward pass instead of remembered."""
        self.model.checkpoints_activations = is_on
