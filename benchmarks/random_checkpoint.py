"""A checkpoint of any true shape with random weights: what speed and memory are measured on.

Weights are normal with a deviation of 0.02, made tensor by tensor from a seed, so that a model of any
size needs no room of its own.
"""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path

import numpy as np

from puna.models.checkpoint import Tensor, Vocabulary
from puna.models.config import ModelConfig, RopeScaling
from puna.models.tiktoken_vocabulary import LLAMA3_SPECIAL_TOKENS, tokenizer_json_from_tiktoken

_LLAMA32_ROPE = RopeScaling(kind="llama3", factor=32.0)

SHAPES = {
    "llama3.2-1b": ModelConfig(
        dim=2048, n_layers=16, n_heads=32, n_kv_heads=8, head_dim=64, ffn_dim=8192, vocab_size=128256,
        max_seq_len=131072, rope_theta=500000.0, rope_scaling=_LLAMA32_ROPE, tied_embeddings=True,
    ),
    "llama3.2-3b": ModelConfig(
        dim=3072, n_layers=28, n_heads=24, n_kv_heads=8, head_dim=128, ffn_dim=8192, vocab_size=128256,
        max_seq_len=131072, rope_theta=500000.0, rope_scaling=_LLAMA32_ROPE, tied_embeddings=True,
    ),
}  # fmt: skip


class RandomCheckpoint:
    """Random weights of a true shape; implements `puna.models.checkpoint.Checkpoint`."""

    kind = "random"

    def __init__(self, shape: str, seed: int = 0) -> None:
        self.path = Path(f"{shape}-random-{seed}")
        self.config = SHAPES[shape]
        self.dtypes = {
            name: "BF16" if len(dims) == 2 else "F32" for name, dims in self.config.tensor_shapes().items()
        }
        self._seed = seed

    def tensor(self, name: str) -> Tensor:
        dims = self.config.tensor_shapes()[name]
        if len(dims) == 1:
            return Tensor(name, "F32", dims, np.ones(dims, np.float32).view(np.uint8))
        rng = np.random.default_rng([self._seed, *name.encode()])
        values = 0.02 * rng.standard_normal(dims, np.float32)
        # Round to bfloat16 by dropping bits: random weights have no use for the nearest one.
        return Tensor(name, "BF16", dims, (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8))

    def vocabulary(self) -> Vocabulary:
        """Llama 3's own tokenizer, from the package `llama-models`."""
        found = [f for f in files("llama-models") or [] if f.match("llama_models/llama3/tokenizer.model")]
        data = Path(str(found[0].locate())).read_bytes()
        return Vocabulary(
            tokenizer_json=tokenizer_json_from_tiktoken(data, LLAMA3_SPECIAL_TOKENS),
            bos_id=128000,
            eos_ids=(128001, 128008, 128009),
            add_bos=True,
        )
