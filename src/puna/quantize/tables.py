"""Text out of tables: Parquet, CSV, and what the Hugging Face library `datasets` saves on a disk.

A table's text is its column ``text``; else ``messages``, of which the contents are taken; else its only
column of strings. Needs pyarrow, the extra ``data``, and reads one batch of rows at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from puna.errors import ConfigError, PunaError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TABLES", "contents", "is_saved_dataset", "read_saved_dataset", "read_table"]

TABLES = (".parquet", ".csv")
"""Endings, in small letters, of files that `read_table` reads."""

_ROWS = 1024  # of a batch
_GROUP_BYTES = 2 * 1024**3  # of a column's piece in a Parquet file, unpacked: it is unpacked whole
_CSV_BLOCK_BYTES = 64 * 1024**2
_STATE_BYTES = 64 * 1024**2


def read_table(path: Path) -> Iterator[str]:
    """The texts of a table, row by row.

    Args:
        path: a file with an ending of `TABLES`; a CSV file has the columns' names in its first line.

    Raises:
        ConfigError: pyarrow is not there, the file is damaged or too large to unpack, or no column is its
            text.
    """
    yield from _guarded(path, _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path))


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder is what ``save_to_disk`` of `datasets` makes."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def read_saved_dataset(folder: Path) -> Iterator[str]:
    """The texts of a dataset that ``save_to_disk`` wrote; of one with splits those of ``train``.

    Raises:
        ConfigError: pyarrow is not there, a file is missing or damaged, there is no split ``train``, or no
            column is the text.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = _object(folder / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or "train" not in splits:
            found = ", ".join(map(str, splits)) if isinstance(splits, list) else "none"
            raise ConfigError(f"{folder} has no split `train`, it has {found:.200}; give the folder of one")
        folder = folder / "train"
    files = _object(folder / "state.json").get("_data_files")
    if not isinstance(files, list):
        raise ConfigError(f"{folder / 'state.json'}: `_data_files` must be a list")
    for file in files:
        name = file.get("filename") if isinstance(file, dict) else None
        if not isinstance(name, str) or name != Path(name).name:
            raise ConfigError(f"{folder / 'state.json'}: {name!r:.100} is no file of that folder")
        yield from _guarded(folder / name, _arrow(folder / name))


def contents(messages: Any) -> str:
    """The texts of a conversation's messages, a line each.

    A message may be without any, where it only calls tools; of a content in parts the texts are taken.

    Raises:
        TypeError: they are not a list of objects with a ``content`` of text.
        KeyError: one has no ``content``, and calls no tools.
    """
    return "\n".join(text for message in messages if (text := _text(message)) is not None)


def _text(message: Any) -> str | None:
    if not isinstance(message, Mapping):
        raise TypeError(f"a message must be an object, got {type(message).__name__}")
    content = message.get("content") if "tool_calls" in message else message["content"]
    match content:
        case None | str():
            return content
        case Mapping():  # a tool's result, as the chat formats write it
            return json.dumps(content, ensure_ascii=False)
    # Parts, of which some may be pictures.
    return "".join(
        part if isinstance(part, str) else part["text"]
        for part in content
        if isinstance(part, str) or part["type"] == "text"
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _STATE_BYTES:
            raise ValueError("it is too large")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a JSON object")
    return raw


def _guarded(path: Path, texts: Iterator[str]) -> Iterator[str]:
    """Pass texts on, with errors of pyarrow's in our words."""
    try:
        yield from texts
    except PunaError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(f"{path} is a table, which needs {error.name}; pip install 'puna[data]'") from error
    except (OSError, ValueError, TypeError, KeyError, MemoryError, NotImplementedError) as error:
        # Each of pyarrow's errors is one of these.
        raise ConfigError(f"{path} cannot be read as a table: {error}") from error


def _parquet(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        name = _text_column(path, file.schema_arrow)
        for i in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(i)
            columns = [group.column(j) for j in range(group.num_columns)]
            n_bytes = sum(
                column.total_uncompressed_size
                for column in columns
                if column.path_in_schema.split(".")[0] == name
            )
            if not 0 <= n_bytes <= _GROUP_BYTES:
                raise ValueError(
                    f"row group {i} unpacks to {n_bytes} bytes of `{name}`, the limit is {_GROUP_BYTES}; "
                    "write it with smaller row groups"
                )
        for batch in file.iter_batches(batch_size=_ROWS, columns=[name]):
            yield from _texts(path, batch, name)


def _csv(path: Path) -> Iterator[str]:
    import pyarrow as pa
    from pyarrow import csv

    # A row must fit into a block. Text may hold line ends, within quotes, and look like a number at first.
    blocks = csv.ReadOptions(block_size=_CSV_BLOCK_BYTES)
    lines = csv.ParseOptions(newlines_in_values=True)
    types = csv.ConvertOptions(column_types={"text": pa.string()}, strings_can_be_null=False)
    with csv.open_csv(path, read_options=blocks, parse_options=lines, convert_options=types) as reader:
        name = _text_column(path, reader.schema)
        for batch in reader:
            yield from _texts(path, batch, name)


def _arrow(path: Path) -> Iterator[str]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        name = _text_column(path, reader.schema)
        for batch in reader:
            batch.validate(full=True)  # offsets of a damaged file would be followed into nowhere
            yield from _texts(path, batch, name)


def _text_column(path: Path, schema: pa.Schema) -> str:
    import pyarrow as pa

    for wanted in ("text", "messages"):
        if schema.names.count(wanted) == 1:
            return wanted
    strings = [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    if len(strings) != 1:
        found = ", ".join(f"`{name}`" for name in schema.names) or "no columns"
        raise ConfigError(
            f"{path}: needs a column `text` or `messages`, or one column of strings alone, got {found:.200}; "
            "rename the one that is meant"
        )
    return str(strings[0])


def _texts(path: Path, batch: pa.RecordBatch, name: str) -> Iterator[str]:
    for value in batch.column(name):
        found = value.as_py()
        if found is None:
            continue
        if name == "messages":
            try:
                found = contents(found)
            except (KeyError, TypeError) as error:
                raise ConfigError(f"{path}: `messages` must be lists of objects with `content`") from error
        if not isinstance(found, str):
            raise ConfigError(f"{path}: `{name}` must hold text, got {type(found).__name__}")
        yield found
