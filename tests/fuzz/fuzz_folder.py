"""The small files of a Hugging Face folder together: config, tokenizer, its settings, the ends of answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.fuzz.fuzz_config import CONFIG
from tests.fuzz.fuzz_tokenizer_json import TEXT, tokenizer_json
from tests.fuzz.harness import main

from puna.models.files import parse_json_object
from puna.models.huggingface import read_config, read_vocabulary
from puna.models.packed import write_vocabulary
from puna.prompt import User, chat_format
from puna.tokens import Tokenizer

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def seeds() -> list[bytes]:
    settings = {
        "add_bos_token": True, "bos_token": "<|end|>", "eos_token": {"content": "<|end|>", "special": True},
        "chat_template": TEMPLATE,
    }  # fmt: skip
    named = {**settings, "chat_template": [{"name": "default", "template": TEMPLATE}]}
    shared = {
        "config.json": {**CONFIG.to_hf(), "vocab_size": 300, "bos_token_id": 1, "eos_token_id": [2, 3]},
        "tokenizer.json": json.loads(tokenizer_json().to_bytes()),
        "generation_config.json": {"eos_token_id": [257, 1]},
    }
    return [json.dumps({**shared, "tokenizer_config.json": given}).encode() for given in (settings, named)]


def parse(data: bytes, folder: Path) -> None:
    for path in folder.glob("*.json"):
        path.unlink()
    for name, value in parse_json_object(data.decode("utf-8", "replace"), "all").items():
        if re.fullmatch("[a-z_]+.json", name):  # file names are not what is tried here
            (folder / name).write_text(json.dumps(value))
    vocabulary = read_vocabulary(folder, read_config(folder).vocab_size)
    tokenizer = Tokenizer(vocabulary)
    form = chat_format(vocabulary, tokenizer)
    ids = form.encode_chat([User(TEXT)])
    assert all(type(i) is int for i in (*ids, *form.stop_ids))
    # What was read can be written, and read again.
    again = folder / "again"
    again.mkdir(exist_ok=True)
    write_vocabulary(again, vocabulary)
    assert read_vocabulary(again, 300).eos_ids == vocabulary.eos_ids


if __name__ == "__main__":
    main(seeds, parse)
