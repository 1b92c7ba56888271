"""Vocabularies of both kinds in GGUF's keys: the same ids, or an error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import save_byte_tokenizer

from puna.errors import CheckpointError
from puna.export.gguf_file import write_gguf_file
from puna.export.gguf_vocabulary import vocabulary_keys
from puna.models.checkpoint import Vocabulary
from puna.models.gguf import _vocabulary
from puna.models.gguf_file import GgufFile
from puna.models.huggingface import read_vocabulary
from puna.models.tokenizer_json import TokenizerJson
from puna.tokens import Tokenizer

TEXT = "Llamas hum, 1234 of them: ab abc  aab cab; é 中🦙\n\n\tthe end. <|eot_id|> <s> don't"


def through_a_file(vocabulary: Vocabulary, n_rows: int, folder: Path) -> Vocabulary:
    write_gguf_file(folder / "v.gguf", vocabulary_keys(vocabulary, n_rows), [])
    return _vocabulary("v.gguf", GgufFile(folder / "v.gguf").metadata, n_rows)


@pytest.mark.parametrize(
    ("name", "n_rows"),
    [
        ("smollm_vocabulary", 49152),
        ("llama3_vocabulary", 128256),
        ("llama2_vocabulary", 300),
        ("tiny_vocabulary", 263),
    ],
)
def test_the_same_ids(name: str, n_rows: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    vocabulary = request.getfixturevalue(name)
    again = through_a_file(vocabulary, n_rows, tmp_path)
    ours, theirs = Tokenizer(vocabulary), Tokenizer(again)
    assert theirs.encode(TEXT) == ours.encode(TEXT)
    ids = range(0, ours.vocab_size, max(1, ours.vocab_size // 500))
    assert [theirs.decode([i]) for i in ids] == [ours.decode([i]) for i in ids]
    assert theirs.special_tokens == ours.special_tokens
    assert (again.bos_id, again.add_bos) == (vocabulary.bos_id, vocabulary.add_bos)
    assert again.chat_template == vocabulary.chat_template
    assert set(vocabulary.eos_ids) <= set(again.eos_ids)


def test_llama3_end_tokens_have_their_roles(llama3_vocabulary: Vocabulary) -> None:
    ends = replace(
        llama3_vocabulary,
        eos_ids=(128001, 128008, 128009),
        special_tokens={"eos_token": "<|eot_id|>"},
        chat_template="{{ messages }}",
    )
    keys = vocabulary_keys(ends, 128256)
    roles = [keys[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "eot", "eom")]
    assert roles == [128000, 128009, 128008, 128001]
    assert keys["tokenizer.chat_template"] == "{{ messages }}"
    assert keys["tokenizer.ggml.pre"] == "llama-bpe"


def test_ids_without_a_token_get_an_unused_one(tiny_vocabulary: Vocabulary) -> None:
    keys: Any = vocabulary_keys(tiny_vocabulary, 265)
    assert keys["tokenizer.ggml.tokens"][-2:] == ["[PAD263]", "[PAD264]"]
    assert keys["tokenizer.ggml.token_type"][-3:] == [1, 5, 5]


@pytest.mark.parametrize("name", ["tiny_vocabulary", "llama2_vocabulary"])
def test_ids_behind_the_vocabulary_still_have_no_token(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    vocabulary = request.getfixturevalue(name)
    n = Tokenizer(vocabulary).vocab_size
    again = Tokenizer(through_a_file(vocabulary, n + 2, tmp_path))
    assert again.left_out(n + 2) == [n, n + 1]


def changed(vocabulary: Vocabulary, **sections: Any) -> Vocabulary:
    file = vocabulary.tokenizer_json
    return replace(vocabulary, tokenizer_json=TokenizerJson({**file.document, **sections}, file.table))


def test_another_way_to_cut_a_text_is_refused(tmp_path: Path, tiny_vocabulary: Vocabulary) -> None:
    save_byte_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match="has no name for this vocabulary's"):
        vocabulary_keys(read_vocabulary(tmp_path, 260), 260)
    lower = changed(tiny_vocabulary, normalizer={"type": "Lowercase"})
    with pytest.raises(CheckpointError, match="GGUF cannot say this vocabulary's `normalizer`"):
        vocabulary_keys(lower, 263)


def test_a_token_that_takes_spaces_is_refused(tiny_vocabulary: Vocabulary) -> None:
    added = json.loads(json.dumps(tiny_vocabulary.tokenizer_json.document["added_tokens"]))
    added[3]["lstrip"] = True
    with pytest.raises(CheckpointError, match="cannot say that '<think>' takes spaces"):
        vocabulary_keys(changed(tiny_vocabulary, added_tokens=added), 263)


def test_half_a_surrogate_pair_is_refused(tiny_vocabulary: Vocabulary, tmp_path: Path) -> None:
    keys = vocabulary_keys(tiny_vocabulary, 263)
    with pytest.raises(CheckpointError, match="half a surrogate pair"):
        write_gguf_file(tmp_path / "v.gguf", keys | {"tokenizer.chat_template": "\ud800"}, [])
