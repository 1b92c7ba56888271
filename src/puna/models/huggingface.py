"""Reading a Llama from a folder in Hugging Face's layout: `HuggingFaceCheckpoint`.

`read_config` and `read_vocabulary` read the folder's small files and serve Puna's own folders too,
which differ in how they store the tensors only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from puna.errors import CheckpointError, TokenizerError
from puna.models.checkpoint import Tensor, Vocabulary, check_shapes
from puna.models.config import ModelConfig
from puna.models.files import read_bytes, read_json_object, read_text
from puna.models.safetensors import SafetensorsFile
from puna.models.tokenizer_json import TokenizerJson
from puna.models.tokenizer_model import read_tokenizer_model
from puna.models.torch_file import TorchFile

__all__ = ["HuggingFaceCheckpoint", "read_config", "read_vocabulary"]

_SHARD = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_DTYPES = ("F32", "F16", "BF16")
# Rotary tables that old versions of transformers stored; they follow from the config.
_IGNORED = re.compile(r"model\.layers\.[0-9]+\.self_attn\.rotary_emb\.inv_freq")


class _Entry(Protocol):
    """What both kinds of weight files say of a tensor."""

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


class _WeightFile(Protocol):
    """A safetensors file or one of PyTorch's."""

    path: Path

    @property
    def entries(self) -> Mapping[str, _Entry]: ...

    def data(self, name: str) -> NDArray[np.uint8]: ...


# Of a folder that has both, the first is read.
_WEIGHTS: dict[str, Callable[[Path], _WeightFile]] = {
    "model.safetensors": SafetensorsFile,
    "pytorch_model.bin": TorchFile,
}


class HuggingFaceCheckpoint:
    """A Llama in a folder of safetensors or PyTorch files; implements `puna.models.checkpoint.Checkpoint`.

    Attributes:
        path: the folder.
        kind: ``Hugging Face``.
        config: the architecture.
        dtypes: storage of every tensor, in the order of the forward pass.
    """

    kind = "Hugging Face"

    def __init__(self, path: Path) -> None:
        """Open a folder and check that it holds one whole Llama.

        Args:
            path: a folder with ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``, or shards
                of it with their index.

        Raises:
            CheckpointError: a file is missing or damaged, the model is not a Llama, or a tensor is missing,
                unknown, or of the wrong shape or type.
        """
        self.path = path
        self.config = read_config(path)
        self._files = {
            name: file
            for file in _weight_files(path)
            for name in file.entries
            if not _is_ignored(name, self.config)
        }
        shapes = {name: file.entries[name].shape for name, file in self._files.items()}
        check_shapes(str(path), self.config, shapes)
        self.dtypes = {name: self._dtype(name) for name in self.config.tensor_shapes()}

    def tensor(self, name: str) -> Tensor:
        """The named tensor, a view into its file.

        Raises:
            CheckpointError: there is no tensor of that name.
        """
        if name not in self._files:
            raise CheckpointError(f"{self.path} has no tensor {name!r}")
        file = self._files[name]
        shape, data = file.entries[name].shape, file.data(name)
        if len(shape) == 2:
            data = data.reshape(shape[0], -1)
        return Tensor(name, self.dtypes[name], shape, data)

    def vocabulary(self) -> Vocabulary:
        """The folder's tokenizer.

        Raises:
            CheckpointError: as `read_vocabulary`.
        """
        return read_vocabulary(self.path, self.config.vocab_size)

    def _dtype(self, name: str) -> str:
        dtype = self._files[name].entries[name].dtype
        if dtype not in _DTYPES:
            raise CheckpointError(
                f"{self._files[name].path}: tensor {name!r:.100} must be stored as "
                f"{', '.join(_DTYPES)}, got {dtype}"
            )
        return dtype


def read_config(folder: Path) -> ModelConfig:
    """Read the architecture from a folder's ``config.json``.

    Raises:
        CheckpointError: the file is missing, damaged, or not of a Llama.
    """
    return ModelConfig.from_hf(read_json_object(folder / "config.json"))


def read_vocabulary(folder: Path, vocab_size: int) -> Vocabulary:
    """Read the tokenizer and its special tokens from a folder.

    Args:
        folder: holds ``tokenizer.json`` (or ``tokenizer.model``) and, where the model has them,
            ``tokenizer_config.json``, ``generation_config.json``, ``chat_template.jinja``, ``config.json``.
        vocab_size: rows of the embedding; every id must be under it.

    Raises:
        CheckpointError: there is no tokenizer, a file is damaged, or an id is out of range.
    """
    tokenizer_json = _tokenizer_json(folder)
    tokenizer = tokenizer_json.document
    ids = _token_ids(folder, tokenizer)
    settings = _optional(folder / "tokenizer_config.json")
    config = _optional(folder / "config.json")
    special = {key: token for key in ("bos_token", "eos_token") if (token := _token_text(settings, key))}
    bos = ids.get(special.get("bos_token", ""), config.get("bos_token_id"))
    eos = [
        *_as_list(_optional(folder / "generation_config.json").get("eos_token_id")),
        *_as_list(config.get("eos_token_id")),
        *_as_list(ids.get(special.get("eos_token", ""))),
    ]
    given = [("eos_token_id", value) for value in eos] + ([] if bos is None else [("bos_token_id", bos)])
    for key, value in given:
        if type(value) is not int or not 0 <= value < vocab_size:
            raise CheckpointError(
                f"{folder}: `{key}` must be a token id under {vocab_size}, got {value!r:.50}"
            )
    return Vocabulary(
        tokenizer_json=tokenizer_json,
        bos_id=bos,
        eos_ids=tuple(dict.fromkeys(eos)),
        add_bos=bos is not None and _adds_bos(settings, tokenizer, special.get("bos_token")),
        chat_template=_chat_template(folder, settings),
        special_tokens=special,
    )


def _tokenizer_json(folder: Path) -> TokenizerJson:
    if (folder / "tokenizer.json").is_file():
        try:
            return TokenizerJson.from_text(read_bytes(folder / "tokenizer.json"))
        except TokenizerError as error:
            raise CheckpointError(f"{folder}: {error}") from error
    if (folder / "tokenizer.model").is_file():
        return read_tokenizer_model(folder / "tokenizer.model").tokenizer_json
    raise CheckpointError(
        f"{folder} has no tokenizer.json; copy it there from the folder that the model came from"
    )


def _weight_files(folder: Path) -> list[_WeightFile]:
    for name, kind in _WEIGHTS.items():
        if (folder / f"{name}.index.json").is_file():
            return _shards(folder / f"{name}.index.json", kind)
        if (folder / name).is_file():
            return [kind(folder / name)]
    listing = " nor ".join(f"{name} or {name}.index.json" for name in _WEIGHTS)
    raise CheckpointError(f"{folder} has a config.json and neither {listing}")


def _shards(index: Path, kind: Callable[[Path], _WeightFile]) -> list[_WeightFile]:
    """The files that an index names, all of them beside it.

    A name cannot lead out of the folder. A link that the user has there may: Hugging Face's own cache
    is made of links, and what they lead to is read as data only, with the same checks.
    """
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index}: needs an object `weight_map`, got {weight_map!r:.50}")
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    for name in weight_map.values():
        if not isinstance(name, str) or not _SHARD.fullmatch(name) or not name.endswith(suffix):
            raise CheckpointError(f"{index}: needs names of {suffix} files beside it, got {name!r:.100}")
    files = [kind(index.parent / name) for name in sorted(set(weight_map.values()))]
    held = {(name, file.path.name) for file in files for name in file.entries}
    differing = sorted(held ^ set(weight_map.items()))
    if differing:
        name, shard = differing[0]
        raise CheckpointError(
            f"{index} and the files do not agree on where {len(differing)} tensors are, the first is "
            f"{name!r:.100} in {shard:.100}; the download may be incomplete or mixed from two models"
        )
    return files


def _is_ignored(name: str, config: ModelConfig) -> bool:
    # A tied head may be stored all the same, as a second copy of the embedding.
    return bool(_IGNORED.fullmatch(name)) or (name == "lm_head.weight" and config.tied_embeddings)


def _optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _token_ids(folder: Path, tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Ids by text of the tokens that stand apart from the byte-pair vocabulary."""
    added = tokenizer.get("added_tokens", [])
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise CheckpointError(f"{folder}: `added_tokens` of tokenizer.json must be a list of objects")
    return {token["content"]: token.get("id") for token in added if isinstance(token.get("content"), str)}


def _token_text(settings: dict[str, Any], key: str) -> str | None:
    value = settings.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _adds_bos(settings: dict[str, Any], tokenizer: dict[str, Any], bos_token: str | None) -> bool:
    explicit = settings.get("add_bos_token")
    if isinstance(explicit, bool):
        return explicit
    # Llama 3 says it in tokenizer.json only: a template that puts the token before the text.
    post = tokenizer.get("post_processor")
    steps = post.get("processors") if isinstance(post, dict) and post.get("type") == "Sequence" else [post]
    return any(_template_starts_with(step, bos_token) for step in _as_list(steps))


def _template_starts_with(step: Any, bos_token: str | None) -> bool:
    match step:
        case {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": str(first)}}, *_]}:
            return bos_token is None or first == bos_token
    return False


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    # Newer versions of transformers write the template to a file of its own, and prefer that.
    if (folder / "chat_template.jinja").is_file():
        return read_text(folder / "chat_template.jinja")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = [item for item in template if isinstance(item, dict) and item.get("name") == "default"]
        template = named[0].get("template") if named else None
    if not isinstance(template, str | None):
        raise CheckpointError(f"{folder}: `chat_template` must be text, got {template!r:.50}")
    return template
