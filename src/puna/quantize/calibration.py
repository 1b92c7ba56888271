"""Calibration text: from a file, a table or a folder of them to sequences of token ids."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from puna.errors import ConfigError
from puna.models.checkpoint import Checkpoint
from puna.prompt.records import LINES, OBJECTS, read_objects, read_utf8
from puna.quantize.tables import TABLES, contents, is_saved_dataset, read_saved_dataset, read_table
from puna.tokens import Tokenizer

__all__ = ["calibration_tokens", "check_length", "read_texts"]

_SUFFIXES = (".txt", ".md", *LINES, *TABLES)
_MAX_CHARACTERS = 1 << 30  # all of it is encoded, and the ids are in memory


def calibration_tokens(path: Path, tokenizer: Tokenizer, *, sequences: int, length: int) -> Tensor:
    """Cut text into sequences, spread evenly over all of it.

    Args:
        path: see `read_texts`.
        tokenizer: the model's.
        sequences: how many.
        length: tokens of each.

    Returns:
        Ids ``[sequences, length]``, int64; the same ones every time.

    Raises:
        ConfigError: the text cannot be read, or is too short.
    """
    ids, n_characters = array("i"), 0  # a list would take 30 bytes a token
    for text in read_texts(path):
        n_characters += len(text)
        if n_characters > _MAX_CHARACTERS:
            raise ConfigError(
                f"{path} has more than {_MAX_CHARACTERS} characters; {sequences} sequences of {length} "
                "tokens need far less: give a part of it"
            )
        ids.extend(tokenizer.encode(text))
    if len(ids) < sequences * length:
        raise ConfigError(
            f"{path} has {len(ids)} tokens, {sequences} sequences of {length} need {sequences * length}; "
            "give more text, or ask for fewer or shorter sequences"
        )
    starts = [i * (len(ids) - length) // max(1, sequences - 1) for i in range(sequences)]
    return torch.from_numpy(np.stack([np.array(ids[start : start + length]) for start in starts])).long()


def check_length(checkpoint: Checkpoint, length: int) -> None:
    """Refuse sequences that are longer than a model's context.

    Raises:
        ConfigError: they are.
    """
    longest = checkpoint.config.max_seq_len
    if length > longest:
        raise ConfigError(
            f"`length` must be at most {longest}, the context of {checkpoint.path}, got {length}; ask for "
            "shorter sequences"
        )


def read_texts(path: Path) -> Iterator[str]:
    """The texts at a path.

    Args:
        path: a text file; a ``.jsonl`` or ``.ndjson`` file of objects, or a ``.json`` file with a list of
            them, with ``text``, or with ``messages`` of which the contents are taken; a ``.parquet`` or
            ``.csv`` file, see `puna.quantize.tables`; a folder that `datasets` saved; or a folder of such
            files, which are read by name, without ``.json``: in a folder that is as often a config as a
            text.

    Raises:
        ConfigError: there is nothing there, it is not UTF-8, or a line or table is nothing of the kind.
    """
    if path.is_dir() and is_saved_dataset(path):
        yield from read_saved_dataset(path)
        return
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist; give a text file, .jsonl, .json, .parquet or .csv, or a folder"
        )
    files = [path]
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file()
        )
    if not files:
        raise ConfigError(f"{path} has no text; give a folder with files of {', '.join(_SUFFIXES)}")
    for file in files:
        yield from read_table(file) if file.suffix.lower() in TABLES else _read_file(file)


def _read_file(file: Path) -> Iterator[str]:
    try:
        n_bytes = file.stat().st_size
    except OSError as error:
        raise ConfigError(f"{file} cannot be read as text: {error}") from error
    if n_bytes > 4 * _MAX_CHARACTERS:
        raise ConfigError(f"{file} has more than {4 * _MAX_CHARACTERS} bytes; give a part of it")
    if file.suffix.lower() in OBJECTS:
        yield from (_text_of(where, record) for where, record in read_objects(file))
    else:
        yield read_utf8(file)


def _text_of(where: str, record: Any) -> str:
    try:
        if "messages" in record:
            return contents(record["messages"])
        text = record["text"]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{where}: needs an object with `text`, or with `messages` that have `content`"
        ) from error
    if not isinstance(text, str):
        raise ConfigError(f"{where}: `text` must be a string, got {type(text).__name__}")
    return text
