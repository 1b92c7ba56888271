"""From files to rows: `load_rows` for texts and conversations, `load_pairs` for preferences."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from puna.errors import ConfigError, PunaError
from puna.models.checkpoint import Vocabulary
from puna.prompt.format import ChatFormat
from puna.prompt.select import chat_format
from puna.tokens import Tokenizer
from puna.train.encode import Example, encode_answer, encode_conversation
from puna.train.records import Conversation, Preference, Record, Text, read_records
from puna.train.rows import Rows, cut_into_rows, pack_into_rows

__all__ = ["Pair", "load_pairs", "load_rows"]

Kind = TypeVar("Kind", bound=Record)
Pair = tuple[Example, Example]
"""The chosen and the rejected answer, each with the conversation before it."""


def load_rows(path: Path, vocabulary: Vocabulary, length: int) -> Rows:
    """Read texts and conversations into rows.

    Texts follow one another, each opened and ended by the vocabulary's tokens, and are cut into rows.
    Conversations are packed whole, see `pack_into_rows`.

    Args:
        path: see `read_records`.
        vocabulary: the model's.
        length: tokens of a row.

    Raises:
        ConfigError: the data cannot be read, is too short or too long; the message names file and line.
    """
    tokenizer = Tokenizer(vocabulary)
    chat = chat_format(vocabulary, tokenizer)
    texts: list[int] = []
    n_texts = 0
    conversations: list[tuple[str, Example]] = []
    for record in read_records(path):
        match record:
            case Text():
                n_texts += 1
                texts += [*chat.encode_text(record.text), *tokenizer.eos_ids[:1]]
            case Conversation():
                conversations.append((record.where, _encoded(chat, record)))
            case Preference():
                raise ConfigError(f"{record.where}: is a preference; those go to `--preferences`")
    if n_texts + len(conversations) == 0:
        raise ConfigError(f"{path} is empty; give texts or conversations")
    _check_lengths(path, conversations, length)
    parts = [pack_into_rows([example for _, example in conversations], length)] if conversations else []
    if n_texts:
        parts.append(cut_into_rows(texts, length))
    return parts[0] + parts[1] if len(parts) > 1 else parts[0]


def load_pairs(path: Path, vocabulary: Vocabulary, length: int) -> list[Pair]:
    """Read preferences.

    Args:
        path: see `read_records`; every record must be a preference.
        vocabulary: the model's.
        length: how many tokens conversation and answer may have.

    Raises:
        ConfigError: the data cannot be read, or an answer is too long; the message names file and line.
    """
    chat = chat_format(vocabulary, Tokenizer(vocabulary))
    pairs = []
    found: list[tuple[str, Example]] = []
    for record in read_records(path):
        if not isinstance(record, Preference):
            raise ConfigError(f"{record.where}: needs `prompt`, `chosen` and `rejected`")
        try:
            pair = (
                encode_answer(chat, record.messages, record.chosen),
                encode_answer(chat, record.messages, record.rejected),
            )
        except PunaError as error:
            raise ConfigError(f"{record.where}: {error}") from error
        pairs.append(pair)
        found += [(record.where, example) for example in pair]
    if not pairs:
        raise ConfigError(f"{path} is empty; give preferences")
    _check_lengths(path, found, length)
    return pairs


def _encoded(chat: ChatFormat, record: Conversation) -> Example:
    try:
        return encode_conversation(chat, record.messages)
    except PunaError as error:
        raise ConfigError(f"{record.where}: {error}") from error


def _check_lengths(path: Path, examples: Iterable[tuple[str, Example]], length: int) -> None:
    long = [(where, len(example.ids)) for where, example in examples if len(example.ids) > length + 1]
    if long:
        where, n = long[0]
        raise ConfigError(
            f"{path}: {len(long)} examples are longer than {length + 1} tokens, the first is {where} with "
            f"{n}; ask for longer rows or take them out"
        )
