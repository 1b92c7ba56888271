"""Calibration text in tables: written by pyarrow and by `datasets`, and damaged by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from puna.errors import ConfigError
from puna.quantize import calibration, tables
from puna.quantize.calibration import read_texts

TEXTS = ["one", "two\nlines, and a comma", "", "vier, größer"]


def parquet(path: Path, columns: dict[str, list[object]], **options: object) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def csv(path: Path, columns: dict[str, list[object]]) -> Path:
    pyarrow.csv.write_csv(pa.table(columns), path)
    return path


@pytest.mark.parametrize(("write", "name"), [(parquet, "t.parquet"), (csv, "t.csv")])
def test_the_column_called_text(tmp_path: Path, write: Callable[..., Path], name: str) -> None:
    columns = {"id": [1, 2, 3, 4], "title": ["a", "b", "c", "d"], "text": TEXTS}
    assert list(read_texts(write(tmp_path / name, columns))) == TEXTS


@pytest.mark.parametrize(("write", "name"), [(parquet, "t.parquet"), (csv, "t.csv")])
def test_the_only_column_of_strings(tmp_path: Path, write: Callable[..., Path], name: str) -> None:
    columns = {"id": [1, 2, 3, 4], "content": TEXTS}
    assert list(read_texts(write(tmp_path / name, columns))) == TEXTS


@pytest.mark.parametrize(("write", "name"), [(parquet, "t.parquet"), (csv, "t.csv")])
def test_no_column_or_too_many(tmp_path: Path, write: Callable[..., Path], name: str) -> None:
    path = write(tmp_path / name, {"question": ["a"], "answer": ["b"]})
    with pytest.raises(
        ConfigError, match=rf"^{path}: needs a column `text` or `messages`, .* got `question`, `answer`"
    ):
        list(read_texts(path))
    with pytest.raises(ConfigError, match="got `n`; rename the one that is meant"):
        list(read_texts(write(tmp_path / f"n-{name}", {"n": [1.5]})))


def test_many_rows_in_several_groups(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(3000)]
    path = parquet(tmp_path / "t.parquet", {"text": texts}, row_group_size=700)
    assert list(read_texts(path)) == texts


def test_conversations(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hum?"}, {"role": "assistant", "content": "Hum."}]
    path = parquet(tmp_path / "t.parquet", {"messages": [messages, None], "other": ["a", "b"]})
    assert list(read_texts(path)) == ["Hum?\nHum."]
    with pytest.raises(ConfigError, match="`messages` must be lists of objects with `content`"):
        list(read_texts(parquet(tmp_path / "u.parquet", {"messages": [["a"]]})))


def test_text_that_looks_like_numbers_first(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n,text\n1,12\n2,007\n")
    assert list(read_texts(tmp_path / "t.csv")) == ["12", "007"]


def test_text_must_be_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`text` must hold text, got int"):
        list(read_texts(parquet(tmp_path / "t.parquet", {"text": [1]})))


def test_a_list_in_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps([{"text": "one"}, {"messages": [{"role": "user", "content": "two"}]}]))
    assert list(read_texts(path)) == ["one", "two"]
    for wrong, message in [
        ("{}", "must hold a list"),
        ("[", "is not JSON"),
        ('[{"text": 1}]', "object 1: `text` must be"),
        ("[1]", "object 1: needs an object"),
    ]:
        path.write_text(wrong)
        with pytest.raises(ConfigError, match=message):
            list(read_texts(path))


def test_messages_without_a_text_and_in_parts(tmp_path: Path) -> None:
    """As training takes them: calls of tools, their results, and contents with pictures."""
    call = {"type": "function", "function": {"name": "hum", "arguments": "{}"}}
    picture = {"type": "image_url", "image_url": {"url": "x"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Hum "}, picture, "this."]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": {"hum": "größer"}},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "assistant", "content": "Hummed."},
    ]
    (tmp_path / "t.jsonl").write_text(json.dumps({"messages": messages}))
    assert list(read_texts(tmp_path / "t.jsonl")) == ['Hum this.\n{"hum": "größer"}\nHummed.']
    for wrong in ([5], "ab", 3, ["tool_calls"], [{"role": "user"}], [{"content": 5}], [{"content": [{}]}]):
        (tmp_path / "t.jsonl").write_text(json.dumps({"messages": wrong}))
        with pytest.raises(ConfigError, match=r"t\.jsonl, line 1: needs an object with `text`"):
            list(read_texts(tmp_path / "t.jsonl"))


def test_endings_in_any_case_and_lines_that_only_a_line_end_ends(tmp_path: Path) -> None:
    text = "one\u2028two\x85three"
    for name in ("a.jsonl", "b.ndjson", "c.JSONL"):
        (tmp_path / name).write_text(
            json.dumps({"text": text}, ensure_ascii=False) + "\r\n", encoding="utf-8"
        )
    assert list(read_texts(tmp_path)) == [text] * 3
    csv(tmp_path / "t.CSV", {"text": ["a"]})
    assert list(read_texts(tmp_path / "t.CSV")) == ["a"]


def test_a_folder_of_tables_and_texts(tmp_path: Path) -> None:
    parquet(tmp_path / "b.parquet", {"text": ["b"]})
    csv(tmp_path / "c.csv", {"text": ["c"]})
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "config.json").write_text("{}")
    assert list(read_texts(tmp_path)) == ["a", "b", "c"]


def saved(folder: Path) -> Path:
    """A dataset with two splits, one of them in two files."""
    train = datasets.Dataset.from_dict({"id": range(4), "text": TEXTS})
    test = datasets.Dataset.from_dict({"id": [0], "text": ["held out"]})
    both = datasets.DatasetDict({"train": train, "test": test})
    both.save_to_disk(folder, num_shards={"train": 2, "test": 1})
    return folder


def test_what_datasets_saved(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d")
    assert list(read_texts(folder)) == TEXTS  # and not what is held out
    assert list(read_texts(folder / "test")) == ["held out"]
    (folder / "dataset_dict.json").write_text('{"splits": ["validation", "test"]}')
    with pytest.raises(
        ConfigError, match="no split `train`, it has validation, test; give the folder of one"
    ):
        list(read_texts(folder))


@pytest.mark.parametrize("name", ["../../secret.arrow", "/etc/passwd", "", 3])
def test_a_saved_dataset_names_files_of_its_own_only(tmp_path: Path, name: object) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(ConfigError, match=r"is no file of that folder|cannot be read as a table"):
        list(read_texts(tmp_path))


@pytest.mark.parametrize("state", ["[]", "{}", "{", '{"_data_files": [1]}'])
def test_a_damaged_state(tmp_path: Path, state: str) -> None:
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(ConfigError):
        list(read_texts(tmp_path))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_damaged_bytes_are_an_error_and_no_more(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        path = where = parquet(tmp_path / "t.parquet", {"text": TEXTS * 50})
    else:
        where = saved(tmp_path / "d") / "train"
        path = where / "data-00000-of-00002.arrow"
    good = path.read_bytes()
    n_refused = 0
    for i in range(0, len(good), max(1, len(good) // 150)):
        path.write_bytes(good[:i] + bytes([good[i] ^ 0xFF]) + good[i + 1 :])
        try:
            assert all(isinstance(text, str) for text in read_texts(where))
        except ConfigError:
            n_refused += 1
    assert n_refused > 20
    for n_bytes in (0, 1, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:n_bytes])
        if kind == "parquet" or n_bytes < len(good) // 2:
            with pytest.raises(ConfigError, match="cannot be read as a table"):
                list(read_texts(where))


def test_pieces_that_unpack_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "t.parquet", {"text": ["a" * 100_000 + str(i) for i in range(20)]})
    assert path.stat().st_size < 200_000
    monkeypatch.setattr(tables, "_GROUP_BYTES", 1_000_000)
    with pytest.raises(ConfigError, match=r"row group 0 unpacks to .* write it with smaller row groups"):
        list(read_texts(path))


def test_more_text_than_can_be_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Letters:
        def encode(self, text: str) -> list[int]:
            return list(text.encode())

    path = parquet(tmp_path / "t.parquet", {"text": ["a" * 60, "b" * 60]})
    ids = calibration.calibration_tokens(path, Letters(), sequences=2, length=60)  # type: ignore[arg-type]
    assert ids.tolist() == [[97] * 60, [98] * 60]
    monkeypatch.setattr(calibration, "_MAX_CHARACTERS", 100)
    with pytest.raises(ConfigError, match="more than 100 characters"):
        calibration.calibration_tokens(path, Letters(), sequences=2, length=60)  # type: ignore[arg-type]
    (tmp_path / "t.txt").write_text("a" * 401)
    with pytest.raises(ConfigError, match="more than 400 bytes"):
        list(read_texts(tmp_path / "t.txt"))


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "t.parquet", {"text": TEXTS})
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"is a table, which needs pyarrow.*; pip install 'puna\[data\]'"):
        list(read_texts(path))
