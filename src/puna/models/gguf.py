"""Reading a Llama from a GGUF file: `GgufCheckpoint`.

Two things differ from what the rest of Puna expects, and are undone here and nowhere else: the
tensors' names, and the order of the rows of q and k.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from puna.errors import CheckpointError
from puna.models.blocks import dequantize
from puna.models.checkpoint import Tensor, Vocabulary, check_shapes
from puna.models.config import ModelConfig
from puna.models.gguf_file import GgufFile
from puna.models.gguf_parts import open_parts
from puna.models.gguf_vocabulary import tokenizer_json_from_gguf
from puna.models.names import translate
from puna.models.rotary import half_split_rows

__all__ = ["ROPE_FACTORS", "GgufCheckpoint", "gguf_name"]

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
ROPE_FACTORS = "rope_freqs.weight"
"""The tensor that holds divisors of the rotary frequencies."""
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
        path: the file, of a model in several parts the one that was given.
        kind: ``GGUF``.
        config: the architecture.
        dtypes: storage of every tensor by its Hugging Face name, in the order of the forward pass.
    """

    kind = "GGUF"

    def __init__(self, path: Path) -> None:
        """Open a file and check that it holds one whole Llama.

        Args:
            path: the GGUF file, or any part of a model in several, all of them in one folder.

        Raises:
            CheckpointError: a file is damaged, a part is missing, it is not a Llama, or has a tensor
                that is missing, unknown or of the wrong shape.
        """
        self.path = path
        parts = open_parts(path)
        self._metadata = parts[0].metadata
        self._sources = {
            translate(name, _NAMES, _LAYER_TENSOR, _LAYER_NAMES): (part, name)
            for part in parts
            for name in part.tensors
            if name != ROPE_FACTORS and not _IGNORED.fullmatch(name)
        }
        config = ModelConfig.from_gguf(self._metadata, _rope_factors(parts))
        self.config = replace(config, tied_embeddings="lm_head.weight" not in self._sources)
        infos = {name: part.tensors[source] for name, (part, source) in self._sources.items()}
        check_shapes(str(path), self.config, {name: info.shape for name, info in infos.items()})
        self.dtypes = {name: infos[name].dtype for name in self.config.tensor_shapes()}

    def tensor(self, name: str) -> Tensor:
        """The named tensor, a view into the file; for q and k a copy with the rows in Hugging Face's order.

        Raises:
            CheckpointError: there is no tensor of that name.
        """
        if name not in self._sources:
            raise CheckpointError(f"{self.path} has no tensor {name!r}")
        part, source = self._sources[name]
        info, data = part.tensors[source], part.data(source)
        if len(info.shape) == 2:
            data = data.reshape(info.shape[0], -1)
        if name.endswith("self_attn.q_proj.weight"):
            data = half_split_rows(data, self.config.n_heads)
        elif name.endswith("self_attn.k_proj.weight"):
            data = half_split_rows(data, self.config.n_kv_heads)
        return Tensor(name, info.dtype, info.shape, data)

    def vocabulary(self) -> Vocabulary:
        """The tokenizer that the file's own vocabulary describes.

        Raises:
            CheckpointError: the file has no vocabulary, or its special tokens are not in it.
        """
        return _vocabulary(str(self.path), self._metadata, self.config.vocab_size)


def gguf_name(name: str) -> str:
    """GGUF's name of the tensor that Hugging Face calls `name`."""
    for theirs, ours in _NAMES.items():
        if name == ours:
            return theirs
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    theirs = next(theirs for theirs, ours in _LAYER_NAMES.items() if ours == part)
    return f"blk.{layer}.{theirs}.weight"


def _rope_factors(parts: Iterable[GgufFile]) -> tuple[float, ...]:
    file = next((part for part in parts if ROPE_FACTORS in part.tensors), None)
    if file is None:
        return ()
    info = file.tensors[ROPE_FACTORS]
    if info.dtype != "F32" or len(info.shape) != 1:
        raise CheckpointError(
            f"{file.path}: `{ROPE_FACTORS}` needs F32 numbers along one axis, "
            f"got {info.dtype} of shape {info.shape}"
        )
    return tuple(dequantize(info.dtype, file.data(ROPE_FACTORS), info.shape).tolist())


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
