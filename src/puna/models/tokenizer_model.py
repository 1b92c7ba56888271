"""Reading ``tokenizer.model``, which is one of two formats under one name: `read_tokenizer_model`."""

from __future__ import annotations

from pathlib import Path

from puna.errors import CheckpointError
from puna.models.checkpoint import Vocabulary
from puna.models.files import map_file
from puna.models.sentencepiece_vocabulary import is_sentencepiece, vocabulary_from_sentencepiece
from puna.models.tiktoken_vocabulary import tokenizer_json_from_tiktoken

__all__ = ["read_tokenizer_model"]

_MAX_BYTES = 64 * 1024 * 1024  # Llama 3's has 2 MB
# The file does not tell an instruct model from a base model, which never says the last two.
_LLAMA3_BOS, _LLAMA3_ENDS = "<|begin_of_text|>", ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")


def read_tokenizer_model(path: Path) -> Vocabulary:
    """Read the vocabulary of Llama 3 (a list of tokens in base64) or of Llama 2 (a sentencepiece model).

    Raises:
        CheckpointError: the file cannot be read, is too large or damaged.
    """
    mapped = map_file(path)
    if mapped.size > _MAX_BYTES:
        raise CheckpointError(f"{path}: needs at most {_MAX_BYTES} bytes, got {mapped.size}")
    data = mapped.tobytes()
    try:
        return vocabulary_from_sentencepiece(data) if is_sentencepiece(data) else _llama3(data)
    except CheckpointError as error:
        raise CheckpointError(f"{path.parent}: {error}") from error


def _llama3(data: bytes) -> Vocabulary:
    tokenizer_json = tokenizer_json_from_tiktoken(data)
    ids = {token["content"]: token["id"] for token in tokenizer_json.document["added_tokens"]}
    return Vocabulary(
        tokenizer_json=tokenizer_json,
        bos_id=ids[_LLAMA3_BOS],
        eos_ids=tuple(ids[token] for token in _LLAMA3_ENDS),
        add_bos=True,
        special_tokens={"bos_token": _LLAMA3_BOS, "eos_token": _LLAMA3_ENDS[0]},
    )
