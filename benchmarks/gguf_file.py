"""A random checkpoint as a GGUF file, for llama.cpp; quantized by llama.cpp's own code."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np

from benchmarks.random_checkpoint import RandomCheckpoint

_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_bf16(checkpoint: RandomCheckpoint, path: Path) -> None:
    """Write all matrices as bf16. Rows of q and k stay as they are: random ones are as good permuted."""
    config = checkpoint.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_vocabulary(writer, checkpoint)
    for name, shape in config.tensor_shapes().items():
        tensor = checkpoint.tensor(name)
        if len(shape) == 1:
            writer.add_tensor(_translate(name), tensor.to_float32())
        else:
            data = tensor.data.reshape(shape[0], -1)
            writer.add_tensor(_translate(name), data, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize_q4_0(source: Path, target: Path) -> None:
    """llama.cpp's own Q4_0 of a bf16 file, as its users run it."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    done = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    if done != 0:
        raise SystemExit(f"llama.cpp could not quantize {source}: {done}")


def _translate(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    _, _, index, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{index}.{_LAYER_NAMES[part]}.weight"


def _add_vocabulary(writer: gguf.GGUFWriter, checkpoint: RandomCheckpoint) -> None:
    vocabulary = checkpoint.vocabulary()
    document = json.loads(vocabulary.tokenizer_json.to_bytes())
    texts = {index: text for text, index in document["model"]["vocab"].items()}
    types = np.full(checkpoint.config.vocab_size, gguf.TokenType.NORMAL)
    for token in document["added_tokens"]:
        texts[token["id"]] = token["content"]
        types[token["id"]] = gguf.TokenType.CONTROL
    merges = [m if isinstance(m, str) else " ".join(m) for m in document["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([texts[i] for i in range(checkpoint.config.vocab_size)])
    writer.add_token_types(types.tolist())
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocabulary.bos_id or 0)
    writer.add_eos_token_id(vocabulary.eos_ids[0])
