"""Writes a Llama as Meta publishes it, with torch.save, from weights in Hugging Face's layout."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from puna.models.config import ModelConfig

PARTS = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}
OUTER = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}


def meta_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in OUTER:
        return OUTER[stem] + ".weight"
    _, _, layer, part = stem.split(".", 3)
    return f"layers.{layer}.{PARTS[part]}.weight"


def interleaved(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Rows of q or k from Hugging Face's order to Meta's: pair i of a head is rows i and i + half."""
    half = weight.shape[0] // n_heads // 2
    rows = [
        head * 2 * half + i + side * half for head in range(n_heads) for i in range(half) for side in (0, 1)
    ]
    return weight[rows]


def meta_pieces(
    weights: Mapping[str, torch.Tensor],
    n_heads: int,
    n_kv_heads: int,
    n_files: int = 1,
    *,
    llama2: bool = False,
) -> list[dict[str, torch.Tensor]]:
    """What each of the files holds; Llama 2 cuts the embedding by columns and stores a rotary table."""
    pieces: list[dict[str, torch.Tensor]] = [{} for _ in range(n_files)]
    for name, weight in weights.items():
        theirs = meta_name(name)
        if theirs.endswith("wq.weight"):
            weight = interleaved(weight, n_heads)
        if theirs.endswith("wk.weight"):
            weight = interleaved(weight, n_kv_heads)
        by_columns = theirs.endswith(("wo.weight", "w2.weight")) or (
            llama2 and theirs == "tok_embeddings.weight"
        )
        cut = [weight] * n_files if weight.ndim == 1 else weight.chunk(n_files, dim=int(by_columns))
        for piece, part in zip(pieces, cut, strict=True):
            piece[theirs] = part.clone(memory_format=torch.contiguous_format)
    if llama2:
        for piece in pieces:
            piece["rope.freqs"] = torch.ones(4)
    return pieces


def quantized_piece(
    config: ModelConfig, *, seed: int = 0, is_tied: bool = False, has_zeros: bool = False
) -> dict[str, torch.Tensor]:
    """The tensors of an official quantized model, random: what `PARTS` and the table of its layout say.

    Written down from the layout and not from Puna's reader, in Meta's order of rows.
    """
    random = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}

    def integers(stem: str, rows: int, columns: int, low: int, groups: int, size: float) -> None:
        state[f"{stem}.weight"] = torch.randint(low, -low, (rows, columns), generator=random).to(torch.int8)
        state[f"{stem}.scales"] = (torch.rand(rows, groups, generator=random) + 0.5) * size / -low
        if has_zeros and low == -8:
            state[f"{stem}.zeros"] = torch.zeros(rows, groups)

    def linear(stem: str, rows: int, columns: int) -> None:
        integers(stem, rows, columns, -8, columns // 32, 0.5)
        if config.lora_rank:
            for half, shape in (("A", (config.lora_rank, columns)), ("B", (rows, config.lora_rank))):
                values = torch.randn(shape, generator=random) * 0.2
                state[f"{stem}.adaptor.{half}.weight"] = values.bfloat16()

    def norm(stem: str) -> None:
        state[f"{stem}.weight"] = (torch.randn(config.dim, generator=random) * 0.2 + 1).bfloat16()

    q_dim, kv_dim = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    integers("tok_embeddings", config.vocab_size, config.dim, -128, 1, 1.0)
    for i in range(config.n_layers):
        layer = f"layers.{i}."
        for name, rows in (("wq", q_dim), ("wk", kv_dim), ("wv", kv_dim)):
            linear(f"{layer}attention.{name}", rows, config.dim)
        linear(f"{layer}attention.wo", config.dim, q_dim)
        linear(f"{layer}feed_forward.w1", config.ffn_dim, config.dim)
        linear(f"{layer}feed_forward.w3", config.ffn_dim, config.dim)
        linear(f"{layer}feed_forward.w2", config.dim, config.ffn_dim)
        norm(f"{layer}attention_norm")
        norm(f"{layer}ffn_norm")
    norm("norm")
    integers("output", config.vocab_size, config.dim, -128, 1, 1.0)
    if is_tied:
        for part in ("weight", "scales"):
            state[f"output.{part}"] = state[f"tok_embeddings.{part}"].clone()
    return state


def write_meta(folder: Path, pieces: list[dict[str, torch.Tensor]], params: Mapping[str, Any]) -> Path:
    """The whole folder, with a tokenizer of one token a byte and the 256 special tokens of Llama 3."""
    folder.mkdir(exist_ok=True)
    for number, piece in enumerate(pieces):
        torch.save(piece, folder / f"consolidated.{number:02d}.pth")
    (folder / "params.json").write_text(json.dumps(params))
    lines = (base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))
    (folder / "tokenizer.model").write_bytes(b"".join(lines))
    return folder
