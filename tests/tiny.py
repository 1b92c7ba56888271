"""Tiny random Llamas in Hugging Face's layout, made with transformers and tokenizers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from puna.nn.model import Transformer

SPECIAL = ("<|bos|>", "<|eos|>", "<|user|>", "<|end|>")
TEMPLATE = (
    "{{ '<|bos|>' }}"
    "{% for m in messages %}{{ '<|user|>' + m.role + ':' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|user|>assistant:' }}{% endif %}"
)

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS = {
    "mha": {"num_key_value_heads": 4},
    "gqa 2": {},
    "mqa": {"num_attention_heads": 6, "num_key_value_heads": 1},
    "gqa 5": {"num_attention_heads": 5, "num_key_value_heads": 1, "hidden_size": 40, "head_dim": 18},
    "tied": {"tie_word_embeddings": True},
    "llama3 rope": {"rope_parameters": LLAMA3_ROPE},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    "odd sizes": {"hidden_size": 50, "num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 14,
                  "intermediate_size": 77, "vocab_size": 261, "num_hidden_layers": 3},
    "wide head": {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128},
    "other eps": {"rms_norm_eps": 0.01},
}  # fmt: skip


def save_tiny(folder: Path, *, seed: int = 0, shards: str | None = None, **changes: Any) -> LlamaForCausalLM:
    """Save a random model of about 30,000 weights with a byte tokenizer; changes go to `LlamaConfig`."""
    settings = {
        "vocab_size": 260,
        "hidden_size": 48,
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "tie_word_embeddings": False,
        "attn_implementation": "eager",
        **changes,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Away from the tiny initial weights, so that attention is not flat and norms are not all one.
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    model.save_pretrained(folder, **({"max_shard_size": shards} if shards else {}))
    save_byte_tokenizer(folder)
    return model


PADDED_ROWS = 268


def save_tiny_padded(folder: Path) -> LlamaForCausalLM:
    """`save_tiny` with more rows than tokens; its first or last row more would win nearly everywhere."""
    model = save_tiny(folder)
    n_tokens = model.config.vocab_size
    model.resize_token_embeddings(PADDED_ROWS, mean_resizing=False)
    with torch.no_grad():
        head = model.lm_head.weight
        head[n_tokens], head[-1] = 1000 * head[0], -1000 * head[0]
    model.save_pretrained(folder)
    return model


ADDITIONS: dict[str, Any] = {
    "has_down_rotation": True, "has_output_rotation": True, "lora_rank": 5, "lora_scale": 1.7,
}  # fmt: skip


def add_parts(model: Transformer, **additions: Any) -> Transformer:
    """The same weights in a model with `ADDITIONS`, or those given; what they add is random."""
    config = replace(model.config, **(additions or ADDITIONS))
    made = Transformer(config)
    generator = torch.Generator().manual_seed(3)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.2, generator=generator)
    made.load_state_dict(model.state_dict(), strict=False)
    return made


def save_byte_tokenizer(folder: Path) -> None:
    """One token a byte, ids 0 to 255, and four special tokens."""
    backend = _byte_level()
    backend.add_special_tokens(list(SPECIAL))
    backend.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return backend


LLAMA3_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)


def save_tiny_llama3(folder: Path, **changes: Any) -> LlamaForCausalLM:
    """`save_tiny` with Llama 3.1's special tokens, from which its chat format follows; no template."""
    model = save_tiny(folder, vocab_size=256 + len(LLAMA3_SPECIAL), **changes)
    backend = _byte_level()
    backend.add_special_tokens(list(LLAMA3_SPECIAL))
    backend.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": LLAMA3_SPECIAL[0], "eos_token": LLAMA3_SPECIAL[5]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return model
