"""The architectures behind the catalogue, in numbers, each with its exact count of weights.

Text models are a `ModelConfig`; those that this version lists and does not run have a dataclass of their
own here. To add a size write one more constant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from puna.models.config import ModelConfig, RopeScaling

__all__ = ["Architecture", "ClassifierArchitecture", "VisionArchitecture"]

_LLAMA3_VOCABULARY = 128_256
# Llama 3.1 stretches by 8; the small models of 3.2 by 32, as their `config.json` says.
_STRETCHED_8 = RopeScaling(kind="llama3", factor=8.0)
_STRETCHED_32 = RopeScaling(kind="llama3", factor=32.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionArchitecture:
    """A Llama 3.2 Vision model: a text trunk, cross-attention layers between its own, an image encoder.

    Attributes:
        text: the trunk, which is Llama 3.1's.
        n_cross_layers: cross-attention layers added to the trunk.
        image_dim: width of the image encoder.
        image_ffn_dim: width of its feed-forward layers.
        n_image_layers: its plain layers.
        n_global_layers: its gated layers over all tiles.
        n_kept_layers: plain layers whose states go to the trunk beside the last one.
        image_size: side of a tile, in pixels.
        patch_size: side of a patch, in pixels.
        max_tiles: tiles of one image.
        n_aspect_ratios: arrangements of the tiles, "none" included.
    """

    text: ModelConfig
    n_cross_layers: int
    image_dim: int = 1280
    image_ffn_dim: int = 5120
    n_image_layers: int = 32
    n_global_layers: int = 8
    n_kept_layers: int = 5
    image_size: int = 560
    patch_size: int = 14
    max_tiles: int = 4
    n_aspect_ratios: int = 9

    @property
    def n_parameters(self) -> int:
        """Number of weights of trunk, cross-attention, projector and image encoder."""
        text = self.text
        image_tokens = 8 * text.dim  # a second, small embedding, for ids from 128256 on
        projector = (1 + self.n_kept_layers) * self.image_dim * text.dim + text.dim
        cross = self.n_cross_layers * _cross_layer(text)
        return text.n_parameters + image_tokens + cross + projector + self._n_encoder_parameters()

    @property
    def image_positions(self) -> int:
        """Positions that the cross-attention layers see of one image: patches and a class token a tile."""
        return self.max_tiles * ((self.image_size // self.patch_size) ** 2 + 1)

    def _n_encoder_parameters(self) -> int:
        dim, ffn = self.image_dim, self.image_ffn_dim
        layer = 4 * dim * dim + (2 * dim * ffn + ffn + dim) + 4 * dim  # attention without biases, two norms
        layers = (self.n_image_layers + self.n_global_layers) * layer + 2 * self.n_global_layers
        patches = (self.image_size // self.patch_size) ** 2 + 1
        positions = patches * dim + self.n_aspect_ratios * self.max_tiles * patches * dim + 1
        tiles = 2 * (self.n_aspect_ratios * self.max_tiles * dim + 1)
        entry = 3 * self.patch_size**2 * dim + dim  # the patches' matrix and the class embedding
        return layers + positions + tiles + entry + 4 * dim


def _cross_layer(text: ModelConfig) -> int:
    q_dim, kv_dim = text.n_heads * text.head_dim, text.n_kv_heads * text.head_dim
    attention = 2 * text.dim * q_dim + 2 * text.dim * kv_dim + 2 * text.head_dim  # norms of queries and keys
    return attention + 3 * text.dim * text.ffn_dim + 2 * text.dim + 2  # two norms, two gates


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierArchitecture:
    """A DeBERTa v3 encoder with a classifier on top.

    Attributes:
        dim: width.
        n_layers: number of layers.
        n_heads: attention heads.
        ffn_dim: width of the feed-forward layers.
        vocab_size: rows of the embedding.
        n_classes: what it tells apart.
        position_buckets: relative positions each way, shared by all layers.
        max_seq_len: longest text, in tokens.
    """

    dim: int
    n_layers: int
    n_heads: int
    ffn_dim: int
    vocab_size: int
    n_classes: int
    position_buckets: int = 256
    max_seq_len: int = 512

    @property
    def n_parameters(self) -> int:
        """Number of weights, the embedding included."""
        return self.n_backbone_parameters + self.vocab_size * self.dim

    @property
    def n_backbone_parameters(self) -> int:
        """Number of weights without the embedding: the one that is in the models' names."""
        dim, ffn = self.dim, self.ffn_dim
        layer = 4 * (dim * dim + dim) + (2 * dim * ffn + ffn + dim) + 4 * dim
        positions = 2 * self.position_buckets * dim
        head = dim * dim + dim + dim * self.n_classes + self.n_classes
        return self.n_layers * layer + positions + 4 * dim + head


Architecture = ModelConfig | VisionArchitecture | ClassifierArchitecture
"""What a row of the catalogue may be built as."""


def _llama2(dim: int, n_layers: int, n_heads: int, n_kv_heads: int, ffn_dim: int) -> ModelConfig:
    return ModelConfig(
        dim=dim, n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=128, ffn_dim=ffn_dim,
        vocab_size=32_000, max_seq_len=4_096,
    )  # fmt: skip


def _llama3(dim: int, n_layers: int, n_heads: int, ffn_dim: int) -> ModelConfig:
    return ModelConfig(
        dim=dim, n_layers=n_layers, n_heads=n_heads, n_kv_heads=8, head_dim=dim // n_heads, ffn_dim=ffn_dim,
        vocab_size=_LLAMA3_VOCABULARY, max_seq_len=8_192, rope_theta=500_000.0,
    )  # fmt: skip


def _long(config: ModelConfig, scaling: RopeScaling, *, tied: bool = False) -> ModelConfig:
    return replace(config, max_seq_len=131_072, rope_scaling=scaling, tied_embeddings=tied)


LLAMA2_7B = _llama2(4096, 32, 32, 32, 11008)
LLAMA2_13B = _llama2(5120, 40, 40, 40, 13824)
LLAMA2_70B = _llama2(8192, 80, 64, 8, 28672)
LLAMA3_8B = _llama3(4096, 32, 32, 14336)
LLAMA3_70B = _llama3(8192, 80, 64, 28672)
LLAMA31_8B = _long(LLAMA3_8B, _STRETCHED_8)
LLAMA31_70B = _long(LLAMA3_70B, _STRETCHED_8)
LLAMA31_405B = _long(_llama3(16384, 126, 128, 53248), _STRETCHED_8)
LLAMA32_1B = _long(_llama3(2048, 16, 32, 8192), _STRETCHED_32, tied=True)
LLAMA32_3B = _long(_llama3(3072, 28, 24, 8192), _STRETCHED_32, tied=True)
# The quantized models are made for shorter texts.
LLAMA32_1B_SHORT = replace(LLAMA32_1B, max_seq_len=8_192)
LLAMA32_3B_SHORT = replace(LLAMA32_3B, max_seq_len=8_192)
LLAMA32_1B_SPINQUANT = replace(LLAMA32_1B_SHORT, has_down_rotation=True)
LLAMA32_3B_SPINQUANT = replace(LLAMA32_3B_SHORT, has_down_rotation=True)
LLAMA32_1B_QLORA = replace(LLAMA32_1B_SHORT, lora_rank=16, lora_scale=2.0)
LLAMA32_3B_QLORA = replace(LLAMA32_3B_SHORT, lora_rank=16, lora_scale=2.0)
LLAMA32_11B_VISION = VisionArchitecture(text=LLAMA31_8B, n_cross_layers=8)
LLAMA32_90B_VISION = VisionArchitecture(text=LLAMA31_70B, n_cross_layers=20)
# The guard's head is a matrix of its own, which makes 1.5 billion weights of 1.2.
GUARD3_1B = replace(LLAMA32_1B, tied_embeddings=False)
GUARD3_1B_PRUNED = replace(GUARD3_1B, n_layers=12, ffn_dim=6400)
PROMPT_GUARD_86M = ClassifierArchitecture(
    dim=768, n_layers=12, n_heads=12, ffn_dim=3072, vocab_size=251_000, n_classes=3
)
PROMPT_GUARD2_86M = replace(PROMPT_GUARD_86M, n_classes=2)
PROMPT_GUARD2_22M = ClassifierArchitecture(
    dim=384, n_layers=12, n_heads=6, ffn_dim=1536, vocab_size=128_100, n_classes=2
)
SMOLLM2_135M = ModelConfig(
    dim=576, n_layers=30, n_heads=9, n_kv_heads=3, head_dim=64, ffn_dim=1536, vocab_size=49_152,
    max_seq_len=8_192, rope_theta=100_000.0, tied_embeddings=True,
)  # fmt: skip
