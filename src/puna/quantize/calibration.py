"""Calibration text: from a file, a folder or JSONL to sequences of token ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from puna.errors import ConfigError
from puna.tokens import Tokenizer

__all__ = ["calibration_tokens", "read_texts"]

_SUFFIXES = (".txt", ".md", ".jsonl")


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
    ids = [token for text in read_texts(path) for token in tokenizer.encode(text)]
    if len(ids) < sequences * length:
        raise ConfigError(
            f"{path} has {len(ids)} tokens, {sequences} sequences of {length} need {sequences * length}; "
            "give more text, or ask for fewer or shorter sequences"
        )
    starts = [i * (len(ids) - length) // max(1, sequences - 1) for i in range(sequences)]
    return torch.tensor([ids[start : start + length] for start in starts])


def read_texts(path: Path) -> Iterator[str]:
    """The texts at a path.

    Args:
        path: a text file; a ``.jsonl`` file of objects with ``text``, or with ``messages`` of which the
            contents are taken; or a folder of such files, which are read by name.

    Raises:
        ConfigError: there is nothing there, it is not UTF-8, or a line is no such object.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    if not files or not path.exists():
        raise ConfigError(f"{path} has no text; give a text file, a .jsonl file or a folder of them")
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} cannot be read as text: {error}") from error
        if file.suffix == ".jsonl":
            yield from (_record(file, n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip())
        else:
            yield text


def _record(file: Path, number: int, line: str) -> str:
    try:
        record = json.loads(line)
        if "messages" in record:
            return "\n".join(message["content"] for message in record["messages"])
        text = record["text"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{file}, line {number}: needs an object with `text`, or with `messages` that have `content`"
        ) from error
    if not isinstance(text, str):
        raise ConfigError(f"{file}, line {number}: `text` must be a string, got {type(text).__name__}")
    return text
