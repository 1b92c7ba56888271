"""A `Transformer` from any checkpoint that Puna reads, and back into Hugging Face's and Meta's layouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from puna.errors import CheckpointError, ConfigError
from puna.models.checkpoint import Checkpoint, Vocabulary
from puna.models.config import ModelConfig
from puna.models.meta_folder import meta_name
from puna.models.new_folder import new_folder
from puna.models.open import open_checkpoint
from puna.models.packed import write_json, write_vocabulary
from puna.models.rotary import interleaved_rows
from puna.models.safetensors import NewTensor, write_safetensors
from puna.models.store import path_of
from puna.models.torch_writer import write_torch
from puna.nn.grid import GridLinear
from puna.nn.model import Transformer

__all__ = ["from_checkpoint", "load", "save_huggingface", "save_meta", "weights_of"]

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def load(
    model: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Transformer:
    """Load a model by name or path.

    Args:
        model: a catalogue name, a name in the store, or a path, see `puna.load`.
        dtype: of the weights; quantized ones are dequantized.
        device: where they go.

    Returns:
        The model, ready for training.

    Raises:
        UnknownModelError: there is no such model.
        CheckpointError: its files are damaged or not supported.
        StoreError: it has to be fetched and cannot be.
    """
    return from_checkpoint(open_checkpoint(path_of(model)), dtype=dtype, device=device)


def from_checkpoint(
    checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Transformer:
    """Load an open checkpoint, tensor by tensor.

    Args:
        checkpoint: any that Puna reads.
        dtype: of the weights.
        device: where they go.

    Raises:
        CheckpointError: a tensor is damaged.
    """
    with torch.device("meta"):
        model = Transformer(checkpoint.config).to(dtype)
    model.to_empty(device=device)
    model.tie_weights()
    with torch.no_grad():
        for name, parameter in weights_of(model).items():
            parameter.copy_(torch.from_numpy(checkpoint.tensor(name).to_float32()))
    return model


def weights_of(model: Transformer) -> dict[str, Tensor]:
    """The model's parameters under the names and in the order of `ModelConfig.tensor_shapes`."""
    parameters = dict(model.named_parameters())  # has a tied head once, under the embedding's name
    return {name: parameters[name] for name in model.config.tensor_shapes()}


def save_huggingface(model: Transformer, vocabulary: Vocabulary, out: Path) -> None:
    """Write a folder that transformers loads, all of it or nothing.

    Args:
        model: the weights, in float32, bfloat16 or float16, which is also how they are written.
        vocabulary: the tokenizer, from the checkpoint that the model came from.
        out: the folder to make; it must not exist yet.

    Raises:
        ConfigError: the weights have another dtype, or are counted in steps of a grid.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    weights = _weights_to_write(model)
    tensors = [
        NewTensor(name, _dtype(weight), tuple(weight.shape), lambda weight=weight: _bytes(weight))  # type: ignore[misc]
        for name, weight in weights.items()
    ]
    with new_folder(out, sum(tensor.n_bytes for tensor in tensors)) as folder:
        write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
        dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
        ids = {"bos_token_id": vocabulary.bos_id, "eos_token_id": list(vocabulary.eos_ids) or None}
        write_json(folder / "config.json", {**model.config.to_hf(), **ids, "dtype": dtype})
        write_vocabulary(folder, vocabulary)


def save_meta(model: Transformer, tokenizer_model: Path, out: Path) -> None:
    """Write a folder as Meta publishes it, in one ``consolidated.00.pth``, all of it or nothing.

    Args:
        model: the weights, in float32, bfloat16 or float16, which is also how they are written.
        tokenizer_model: the ``tokenizer.model`` to put beside them.
        out: the folder to make; it must not exist yet.

    Raises:
        CheckpointError: Meta's ``params.json`` cannot say what this model is.
        ConfigError: the weights have another dtype, or are counted in steps of a grid.
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    config, weights = model.config, _weights_to_write(model)
    params = config.to_meta()
    if not tokenizer_model.is_file():
        raise CheckpointError(f"{tokenizer_model} does not exist; give the tokenizer.model of the model")
    # Meta's program knows no tied head: its files have the matrix under both names.
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    tensors = [
        NewTensor(
            meta_name(name),
            _dtype(weight),
            tuple(weight.shape),
            lambda name=name, weight=weight: _meta_rows(name, weight, config),  # type: ignore[misc]
        )
        for name, weight in weights.items()
    ]
    with new_folder(out, sum(tensor.n_bytes for tensor in tensors)) as folder:
        write_torch(folder / "consolidated.00.pth", tensors)
        (folder / "params.json").write_text(json.dumps(params) + "\n", encoding="utf-8")
        shutil.copyfile(tokenizer_model, folder / "tokenizer.model")


def _weights_to_write(model: Transformer) -> dict[str, Tensor]:
    if any(isinstance(module, GridLinear) for module in model.modules()):
        raise ConfigError(
            "the model counts its weights in steps of a grid, see `puna.nn.grid`; write it as a quantized "
            "model, with `puna.nn.packed.ModelCheckpoint` and `write_checkpoint`, and export that"
        )
    return weights_of(model)


def _meta_rows(name: str, weight: Tensor, config: ModelConfig) -> NDArray[np.uint8]:
    heads = {"q_proj.weight": config.n_heads, "k_proj.weight": config.n_kv_heads}
    n_heads = next((n for part, n in heads.items() if name.endswith(part)), None)
    if n_heads is None:
        return _bytes(weight)
    return interleaved_rows(_bytes(weight).reshape(len(weight), -1), n_heads)


def _dtype(weight: Tensor) -> str:
    if weight.dtype not in _DTYPES:
        raise ConfigError(
            f"weights are written as float32, bfloat16 or float16, got {weight.dtype}; use `model.to(...)`"
        )
    return _DTYPES[weight.dtype]


def _bytes(weight: Tensor) -> NDArray[np.uint8]:
    return weight.detach().cpu().contiguous().view(torch.uint8).numpy()
