"""Hugging Face's config.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tests.fuzz.harness import main

from puna.models.config import ModelConfig, RopeScaling
from puna.models.huggingface import read_config

CONFIG = ModelConfig(
    dim=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, ffn_dim=96, vocab_size=40, max_seq_len=128,
    rope_scaling=RopeScaling(kind="llama3", factor=8.0),
)  # fmt: skip
ADDED = replace(CONFIG, has_down_rotation=True, has_output_rotation=True, lora_rank=4, lora_scale=2.0)


def seeds() -> list[bytes]:
    factors = {**CONFIG.to_hf(), "rope_scaling": {"rope_type": "factors", "factors": [1.0] * 8}}
    return [json.dumps(raw).encode() for raw in (CONFIG.to_hf(), factors, ADDED.to_puna())]


def parse(data: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(data)
    config = read_config(folder)
    assert len(config.rope_frequencies()) == config.head_dim // 2
    assert config.n_parameters > 0


if __name__ == "__main__":
    main(seeds, parse)
