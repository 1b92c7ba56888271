"""Reading a Llama from a GGUF file: `GgufCheckpoint`.

Two things differ from what the rest of Puna expects, and are undone here and nowhere else: the
tensors' names, and the order of the rows of q and k.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.models.blocks import dequantize
from puna.models.checkpoint import Tensor, Vocabulary, check_shapes
from puna.models.config import ModelConfig
from puna.models.gguf_file import GgufFile
from puna.models.gguf_vocabulary import tokenizer_json_from_gguf

__all__ = ["GgufCheckpoint"]

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_TENSOR = re.compile(r"blk\.(0|[1-9][0-9]{0,3})\.([a-z_]+)\.weight")
_ROPE_FACTORS = "rope_freqs.weight"
# Rotary tables that some converters stored; they follow from the config.
_IGNORED = re.compile(r"blk\.[0-9]+\.attn_rot_embd\.weight")

_CONTROL = 3  # `tokenizer.ggml.token_type` of tokens such as <|eot_id|>
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Llama 3 files name one of these as their end token and stop at all of them.
_END_TOKENS = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>")
_BOS_BY_DEFAULT = ("llama-bpe", "llama-v3", "llama3")


class GgufCheckpoint:
    """A Llama in a GGUF file, open for reading; implements `puna.models.checkpoint.Checkpoint`.

    Attributes:
        path: the file.
        kind: ``GGUF``.
        config: the architecture.
        dtypes: storage of every tensor by its Hugging Face name, in the order of the forward pass.
    """

    kind = "GGUF"

    def __init__(self, path: Path) -> None:
        """Open a file and check that it holds one whole Llama.

        Args:
            path: the GGUF file.

        Raises:
            CheckpointError: the file is damaged, is one part of several, is not a Llama, or has a tensor
                that is missing, unknown or of the wrong shape.
        """
        self.path = path
        self._file = GgufFile(path)
        _refuse_split(path, self._file.metadata)
        self._sources = {
            _translate(name): name
            for name in self._file.tensors
            if name != _ROPE_FACTORS and not _IGNORED.fullmatch(name)
        }
        config = ModelConfig.from_gguf(self._file.metadata, _rope_factors(self._file))
        self.config = replace(config, tied_embeddings="lm_head.weight" not in self._sources)
        infos = {name: self._file.tensors[source] for name, source in self._sources.items()}
        check_shapes(str(path), self.config, {name: info.shape for name, info in infos.items()})
        self.dtypes = {name: infos[name].dtype for name in self.config.tensor_shapes()}

    def tensor(self, name: str) -> Tensor:
        """The named tensor, a view into the file; for q and k a copy with the rows in Hugging Face's order.

        Raises:
            CheckpointError: there is no tensor of that name.
        """
        if name not in self._sources:
            raise CheckpointError(f"{self.path} has no tensor {name!r}")
        source = self._sources[name]
        info, data = self._file.tensors[source], self._file.data(source)
        if len(info.shape) == 2:
            data = data.reshape(info.shape[0], -1)
        if name.endswith("self_attn.q_proj.weight"):
            data = _half_split_rows(data, self.config.n_heads)
        elif name.endswith("self_attn.k_proj.weight"):
            data = _half_split_rows(data, self.config.n_kv_heads)
        return Tensor(name, info.dtype, info.shape, data)

    def vocabulary(self) -> Vocabulary:
        """The tokenizer that the file's own vocabulary describes.

        Raises:
            CheckpointError: the file has no vocabulary, or its special tokens are not in it.
        """
        return _vocabulary(str(self.path), self._file.metadata, self.config.vocab_size)


def _translate(name: str) -> str:
    """The Hugging Face name of a tensor; a name that has none stays, for `check_shapes` to refuse."""
    layer = _LAYER_TENSOR.fullmatch(name)
    if layer and layer[2] in _LAYER_NAMES:
        return f"model.layers.{layer[1]}.{_LAYER_NAMES[layer[2]]}.weight"
    return _NAMES.get(name, name)


def _half_split_rows(data: NDArray[np.uint8], n_heads: int) -> NDArray[np.uint8]:
    """Rows of q or k from GGUF's order to Hugging Face's; ``[heads * head_dim, bytes]`` to the same.

    A rotation turns a pair of rows. GGUF keeps the two of a pair side by side; Hugging Face keeps all
    first ones of a head, then all second ones.

    Source: llama.cpp, ``convert_hf_to_gguf.py``, ``LlamaModel.permute``, of which this is the inverse.
    """
    n_rows, n_bytes = data.shape
    pairs = data.reshape(n_heads, n_rows // n_heads // 2, 2, n_bytes)
    rows = pairs.swapaxes(1, 2).reshape(n_rows, n_bytes)
    rows.flags.writeable = False
    return rows


def _refuse_split(path: Path, metadata: dict[str, Any]) -> None:
    parts = metadata.get("split.count", 1)
    if parts not in (0, 1):
        raise CheckpointError(
            f"{path} is one of {parts!r:.50} parts of a model, Puna reads a GGUF model in one file; "
            "join the parts with `llama-gguf-split --merge`"
        )


def _rope_factors(file: GgufFile) -> tuple[float, ...]:
    info = file.tensors.get(_ROPE_FACTORS)
    if info is None:
        return ()
    if info.dtype != "F32" or len(info.shape) != 1:
        raise CheckpointError(
            f"{file.path}: `{_ROPE_FACTORS}` needs F32 numbers along one axis, "
            f"got {info.dtype} of shape {info.shape}"
        )
    return tuple(dequantize(info.dtype, file.data(_ROPE_FACTORS), info.shape).tolist())


def _vocabulary(source: str, metadata: dict[str, Any], vocab_size: int) -> Vocabulary:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise CheckpointError(
            f"{source}: `tokenizer.ggml.tokens` must be a list of text; it has no vocabulary"
        )
    if len(tokens) > vocab_size:
        raise CheckpointError(
            f"{source}: the vocabulary must fit the embedding's {vocab_size} rows, got {len(tokens)} tokens"
        )
    bos_id = _token_id(source, metadata, "bos_token_id", len(tokens))
    end_ids = [_token_id(source, metadata, key, len(tokens)) for key in _END_KEYS]
    eos_ids = [token_id for token_id in end_ids if token_id is not None]
    eos_ids += _control_tokens(tokens, metadata.get("tokenizer.ggml.token_type"))
    special = {"bos_token": bos_id, "eos_token": end_ids[0]}
    template = metadata.get("tokenizer.chat_template")
    if not isinstance(template, str | None):
        raise CheckpointError(f"{source}: `tokenizer.chat_template` must be text, got {template!r:.50}")
    return Vocabulary(
        tokenizer_json=tokenizer_json_from_gguf(metadata),
        bos_id=bos_id,
        eos_ids=tuple(dict.fromkeys(eos_ids)),
        add_bos=bos_id is not None and _adds_bos(source, metadata),
        chat_template=template,
        special_tokens={name: tokens[i] for name, i in special.items() if i is not None},
    )


def _token_id(source: str, metadata: dict[str, Any], key: str, n_tokens: int) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if value is not None and (type(value) is not int or not 0 <= value < n_tokens):
        raise CheckpointError(
            f"{source}: `tokenizer.ggml.{key}` must be a token id under {n_tokens}, got {value!r:.50}"
        )
    return value


def _control_tokens(tokens: list[str], types: object) -> list[int]:
    """Ids of the known end tokens among the control tokens, so that plain text never counts as one."""
    if not isinstance(types, list) or len(types) != len(tokens):
        return []
    return [i for i, kind in enumerate(types) if kind == _CONTROL and tokens[i] in _END_TOKENS]


def _adds_bos(source: str, metadata: dict[str, Any]) -> bool:
    value = metadata.get("tokenizer.ggml.add_bos_token")
    if value is None:
        # Files from before this key: llama.cpp goes by the kind of vocabulary.
        by_model = metadata.get("tokenizer.ggml.model") == "llama"
        return by_model or metadata.get("tokenizer.ggml.pre") in _BOS_BY_DEFAULT
    if not isinstance(value, bool):
        raise CheckpointError(
            f"{source}: `tokenizer.ggml.add_bos_token` must be true or false, got {value!r:.50}"
        )
    return value
