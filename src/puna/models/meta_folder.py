"""What the folders that Meta publishes have in common: files, settings, names of tensors, the vocabulary."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from puna.errors import CheckpointError
from puna.models.checkpoint import Vocabulary
from puna.models.files import read_json_object
from puna.models.huggingface import read_vocabulary
from puna.models.names import translate
from puna.models.tokenizer_model import read_tokenizer_model
from puna.models.torch_file import TorchFile

__all__ = [
    "EMBEDDING",
    "HEAD",
    "huggingface_name",
    "is_quantized",
    "meta_name",
    "open_files",
    "read_meta_vocabulary",
    "read_params",
]

_FILE = re.compile(r"consolidated\.([0-9]{2})\.pth")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_NAMES = {
    "tok_embeddings.weight": EMBEDDING,
    "norm.weight": "model.norm.weight",
    "output.weight": HEAD,
}
_LAYER_NAMES = {
    "attention_norm": "input_layernorm",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
}
_LAYER_TENSOR = re.compile(r"layers\.(0|[1-9][0-9]{0,3})\.([a-z0-9_.]+)\.weight")

# Halves of an adaptor, in Hugging Face's words and in Meta's.
_ADAPTOR = {".lora_A": ".adaptor.A", ".lora_B": ".adaptor.B"}


def huggingface_name(name: str) -> str:
    """Hugging Face's name of the tensor that Meta calls `name`, see `puna.models.names.translate`."""
    return translate(name, _NAMES, _LAYER_TENSOR, _LAYER_NAMES)


def meta_name(name: str) -> str:
    """Meta's name of the tensor that Hugging Face calls `name`."""
    for theirs, ours in _NAMES.items():
        if name == ours:
            return theirs
    layer, part, half = re.fullmatch(  # type: ignore[union-attr]
        r"model\.(layers\.[0-9]+\.)(.+?)(\.lora_[AB])?\.weight", name
    ).groups()
    theirs = next(theirs for theirs, ours in _LAYER_NAMES.items() if ours == part)
    return f"{layer}{theirs}{_ADAPTOR.get(half, '')}.weight"


def is_quantized(params: dict[str, Any]) -> bool:
    """Whether a ``params.json`` is one of the official quantized models'."""
    return "quantization_args" in params or "lora_args" in params


def read_params(folder: Path) -> dict[str, Any]:
    """The settings of ``params.json``, those that some files have under ``model`` brought up.

    Raises:
        CheckpointError: the file cannot be read or is damaged.
    """
    params = read_json_object(folder / "params.json")
    inner = params.pop("model", {})
    if not isinstance(inner, dict):
        raise CheckpointError(f"{folder / 'params.json'}: `model` must be an object, got {inner!r:.50}")
    return {**params, **inner}


def open_files(folder: Path) -> list[TorchFile]:
    """Map ``consolidated.00.pth``, ``consolidated.01.pth``, ...

    Raises:
        CheckpointError: one is missing or damaged.
    """
    try:
        names = sorted(child.name for child in folder.iterdir() if _FILE.fullmatch(child.name))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror or error}") from error
    expected = [f"consolidated.{number:02d}.pth" for number in range(max(len(names), 1))]
    missing = [name for name in expected if name not in names]
    if missing:
        raise CheckpointError(
            f"{folder} has a params.json and no {missing[0]}; the download may be incomplete"
        )
    return [TorchFile(folder / name) for name in names]


def read_meta_vocabulary(folder: Path, vocab_size: int) -> Vocabulary:
    """The vocabulary of ``tokenizer.model``, in the folder or (as Llama 2 was laid out) the one above.

    A folder that Puna wrote may have a ``tokenizer.json`` instead, see `puna.models.meta_writer`.

    Args:
        folder: the model's.
        vocab_size: rows of its embedding.

    Raises:
        CheckpointError: there is no such file, it is damaged, or has more tokens than the embedding.
    """
    paths = [folder / "tokenizer.model", folder.resolve().parent / "tokenizer.model"]
    path = next((path for path in paths if path.is_file()), None)
    if path is None and (folder / "tokenizer.json").is_file():
        return read_vocabulary(folder, vocab_size)
    if path is None:
        raise CheckpointError(
            f"{folder} has no tokenizer.model; copy it there from the folder that the model came from"
        )
    vocabulary = read_tokenizer_model(path)
    tokenizer = vocabulary.tokenizer_json
    n_tokens = max([tokenizer.table.size, *(1 + token["id"] for token in tokenizer.document["added_tokens"])])
    if n_tokens > vocab_size:
        raise CheckpointError(
            f"{path} must fit the embedding's {vocab_size} rows, got {n_tokens} tokens; it belongs to "
            "another model"
        )
    return vocabulary
