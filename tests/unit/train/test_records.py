from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from puna.errors import ConfigError
from puna.prompt.messages import Assistant, User
from puna.train.records import Conversation, Preference, Text, read_records

CHAT = [{"role": "user", "content": "Hum?"}, {"role": "assistant", "content": "Hum."}]


def lines(path: Path, *records: Any) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n", encoding="utf-8")
    return path


def test_each_kind_of_line_becomes_a_record(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        {"text": "one\u2028two"},
        {"messages": CHAT, "source": "somewhere"},
        {"prompt": "Hum?", "chosen": "Hum.", "rejected": {"role": "assistant", "content": "No."}},
        {"messages": CHAT + CHAT[:1], "chosen": [CHAT[1]], "rejected": "No."},
    )
    hum, said = User("Hum?"), Assistant("Hum.")
    assert list(read_records(path)) == [
        Text(f"{path}, line 1", "one\u2028two"),
        Conversation(f"{path}, line 2", (hum, said)),
        Preference(f"{path}, line 3", (hum,), said, Assistant("No.")),
        Preference(f"{path}, line 4", (hum, said, hum), said, Assistant("No.")),
    ]


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("plain")
    lines(tmp_path / "a.jsonl", {"text": "first"})
    (tmp_path / "c.bin").write_bytes(b"\xff")
    assert [record.text for record in read_records(tmp_path)] == ["first", "plain"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: is not JSON"),
        ("[" * 100_000, "line 2: is not JSON"),
        ("[]", "line 2: must be a JSON object, got list"),
        ('{"txt": ""}', "line 2: needs `text`, `messages`, or `prompt` with .* got `txt`"),
        ("{}", "got nothing"),
        ('{"text": 3}', "line 2: `text` must be a string, got int"),
        ('{"messages": [{"role": "usr", "content": ""}]}', r"`messages`: messages\[0\]: unknown role 'usr'"),
        ('{"messages": "hello"}', "`messages`: messages: must be a list"),
        ('{"messages": [{"role": "user", "content": "?"}]}', "line 2: has no message of the assistant"),
        ('{"prompt": "?", "chosen": "!"}', "line 2: two answers need"),
        ('{"prompt": "?", "chosen": "!", "rejected": null}', "`rejected` must be a string, got NoneType"),
        ('{"prompt": "?", "chosen": "!", "rejected": [{"role": "user", "content": ""}]}', "`rejected` must"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=words):
        list(read_records(path))


def test_endings_of_files(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.ndjson", "c.JSONL"):
        lines(tmp_path / name, {"messages": CHAT})
    assert [type(record) for record in read_records(tmp_path)] == [Conversation] * 3
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([{"messages": CHAT}, {"text": "one"}]))
    assert [record.where for record in read_records(path)] == [f"{path}, object 1", f"{path}, object 2"]
    path.write_text(json.dumps({"messages": CHAT}))
    with pytest.raises(ConfigError, match=r"conversations\.json must hold a list of objects, got dict"):
        list(read_records(path))
    for name in ("t.csv", "t.Parquet"):
        (tmp_path / name).write_text("text\nHum.\n")
        with pytest.raises(ConfigError, match=r"is a table, .* not read as training data; write a \.jsonl"):
            list(read_records(tmp_path / name))


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        list(read_records(tmp_path / "a.txt"))
    with pytest.raises(ConfigError, match="has no data"):
        list(read_records(tmp_path / "none.jsonl"))
