"""What Hugging Face's server says about a repository."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub.hf_api import ModelInfo
from tests.fuzz.harness import main

from puna.errors import DownloadError
from puna.models.files import parse_json_object
from puna.models.sources.huggingface import listed_files

LARGE = {"sha256": "cd" * 32, "size": 7, "pointerSize": 134}


def seeds() -> list[bytes]:
    siblings = [
        {"rfilename": "config.json", "size": 3, "blobId": "ab" * 20},
        {"rfilename": "model.safetensors", "size": 7, "blobId": "ab" * 20, "lfs": LARGE},
    ]
    info = {
        "_id": "1", "id": "a/b", "modelId": "a/b", "sha": "ef" * 20, "private": False, "gated": False,
        "siblings": siblings, "cardData": {"license": "llama3.2"},
    }  # fmt: skip
    gguf = [
        {"rfilename": f"x/m-0000{i}-of-00002.gguf", "size": i, "blobId": "", "lfs": LARGE} for i in (1, 2)
    ]
    return [json.dumps(raw).encode() for raw in (info, {**info, "siblings": gguf})]


def parse(data: bytes, folder: Path) -> None:
    raw = parse_json_object(data.decode("utf-8", "replace"), "the server")
    try:
        info = ModelInfo(**raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DownloadError("as plan_repository does") from error
    files = listed_files(info, "https://hub/a/b/resolve/main", "a/b")
    assert files
    assert all(file.size >= 0 and Path(file.name).name == file.name for file in files)


if __name__ == "__main__":
    main(seeds, parse)
