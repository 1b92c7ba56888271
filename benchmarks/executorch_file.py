"""A random checkpoint as an ExecuTorch program: 8da4w in groups of 32, as Meta exported Llama 3.2.

All linear layers have 4-bit weights, the head too; the embedding is int8 a row; XNNPACK computes, with
ExecuTorch's own attention and its cache in the program. For the shape of Llama 3.2 1B the export takes 9 GB
of memory and up to half an hour on one CPU.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from executorch.examples.models.llama.export_llama_lib import export_llama
from executorch.extension.llm.export.config.llm_config import LlmConfig, ModelType

from benchmarks.random_checkpoint import RandomCheckpoint

CONTEXT = 2304  # positions of the program's cache: the longest prompt that is measured, and an answer

_NAMES = {
    "model.embed_tokens.weight": "tok_embeddings.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER_NAMES = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}


def export_8da4w(checkpoint: RandomCheckpoint, path: Path) -> None:
    """Write the program; what it is made from goes through a temporary folder beside it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder)
        torch.save(_tensors(checkpoint), source / "consolidated.00.pth")
        (source / "params.json").write_text(json.dumps(_params(checkpoint)))
        config = LlmConfig()
        config.base.model_class = ModelType.llama3_2
        config.base.checkpoint = str(source / "consolidated.00.pth")
        config.base.params = str(source / "params.json")
        config.base.metadata = json.dumps({"get_bos_id": 128000, "get_eos_ids": [128009, 128001]})
        config.model.use_kv_cache = True
        config.model.use_sdpa_with_kv_cache = True
        config.export.max_seq_length = CONTEXT
        config.export.max_context_length = CONTEXT
        config.export.output_name = str(source / "program.pte")
        config.quantization.qmode = "8da4w"
        config.quantization.group_size = 32
        config.quantization.embedding_quantize = "8,0"
        config.backend.xnnpack.enabled = True
        config.backend.xnnpack.extended_ops = True
        export_llama(config)
        (source / "program.pte").rename(path)


def _params(checkpoint: RandomCheckpoint) -> dict[str, object]:
    config = checkpoint.config
    return {
        "dim": config.dim,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "hidden_dim": config.ffn_dim,
        "vocab_size": config.vocab_size,
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "use_scaled_rope": True,
    }


def _tensors(checkpoint: RandomCheckpoint) -> dict[str, torch.Tensor]:
    """Meta's names. Rows of q and k stay as they are: random ones are as good permuted."""
    tensors = {}
    for name, dims in checkpoint.config.tensor_shapes().items():
        tensor = checkpoint.tensor(name)
        dtype = torch.bfloat16 if tensor.dtype == "BF16" else torch.float32
        values = torch.from_numpy(tensor.data).view(dtype).reshape(dims).to(torch.bfloat16)
        tensors[_translate(name)] = values
    tensors.setdefault("output.weight", tensors["tok_embeddings.weight"])
    return tensors


def _translate(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    _, _, index, part = name.removesuffix(".weight").split(".", 3)
    return f"layers.{index}.{_LAYER_NAMES[part]}.weight"
