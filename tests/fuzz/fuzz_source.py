"""puna-source.json, which says where a model of the store is from."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fuzz.harness import main

from puna.models.source_file import NAME, read_source
from puna.models.store import InstalledModel
from puna.models.verify import verify


def seeds() -> list[bytes]:
    files = [{"name": "a.gguf", "size": 3, "sha256": "ab" * 32}, {"name": "b", "size": 0}]
    own = {
        "origin": "hf:a/b",
        "revision": "1",
        "link": None,
        "licence": "mit",
        "duties": ["x"],
        "files": files,
    }
    return [json.dumps(raw).encode() for raw in (own, own | {"link": "/somewhere/else"})]


def parse(data: bytes, folder: Path) -> None:
    (folder / NAME).write_bytes(data)
    source = read_source(folder)
    model = InstalledModel(name="m", folder=folder, path=folder, n_bytes=0, source=source)
    assert isinstance(model.is_whole, bool)
    assert len(verify(model)) == len(source.files if source else ())


if __name__ == "__main__":
    main(seeds, parse)
