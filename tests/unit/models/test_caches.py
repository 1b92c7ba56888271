"""Models of other programs, used where they are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from puna.errors import CheckpointError, StoreError
from puna.models import store
from puna.models.local import open_model
from puna.models.pull import pull
from puna.models.sources.caches import find_in_hub_cache, find_in_ollama
from puna.models.verify import verify

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    return tmp_path / "ollama"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HUGGINGFACE_HUB_CACHE", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "huggingface" / "hub"


@pytest.fixture
def gguf(tmp_path: Path, write_gguf: Any) -> Path:
    return write_gguf(tmp_path / "tiny.gguf")


def put_in_ollama(root: Path, gguf: Path, name: str, **changes: Any) -> Path:
    data = gguf.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    blob = root / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    layer = {
        "mediaType": "application/vnd.ollama.image.model",
        "digest": f"sha256:{digest}",
        "size": len(data),
    }
    template = {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:0", "size": 0}
    manifest = root / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"layers": [template, {**layer, **changes}]}))
    return blob


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("tiny:1b", "registry.ollama.ai/library/tiny/1b"),
        ("tiny", "registry.ollama.ai/library/tiny/latest"),
        ("me/tiny:x", "registry.ollama.ai/me/tiny/x"),
        ("hf.co/me/tiny:Q4_0", "hf.co/me/tiny/Q4_0"),
    ],
)
def test_ollama_s_names(ollama: Path, gguf: Path, name: str, path: str) -> None:
    blob = put_in_ollama(ollama, gguf, path)
    found = find_in_ollama(name)
    assert found is not None
    assert (found.path, found.origin) == (blob, f"ollama:{name}")


@pytest.mark.parametrize(
    "name", ["", ":", "nobody", "../../x", "/etc/passwd", "a/b/c/d", "a:../b", "a b", "tiny:2b", ".:."]
)
def test_names_that_ollama_does_not_have(ollama: Path, gguf: Path, name: str) -> None:
    put_in_ollama(ollama, gguf, "registry.ollama.ai/library/tiny/1b")
    assert find_in_ollama(name) is None


@pytest.mark.parametrize(
    "changes", [{"size": 5}, {"digest": "sha256:../../x"}, {"digest": 7}, {"digest": "sha256:" + "0" * 64}]
)
def test_manifests_that_lie(ollama: Path, gguf: Path, changes: dict[str, Any]) -> None:
    put_in_ollama(ollama, gguf, "registry.ollama.ai/library/tiny/1b", **changes)
    assert find_in_ollama("tiny:1b") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"layers": 3}', '{"layers": [{}]}', '{"layers": []}', "\0"]
)
def test_manifests_that_are_none(ollama: Path, text: str) -> None:
    manifest = ollama / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "1b"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(text)
    assert find_in_ollama("tiny:1b") is None


def test_a_model_of_ollama_is_linked(ollama: Path, gguf: Path) -> None:
    blob = put_in_ollama(ollama, gguf, "registry.ollama.ai/library/tiny/1b")
    model = pull("ollama:tiny:1b")
    assert (model.name, model.path, model.is_linked) == ("tiny-1b", blob, True)
    assert model.n_bytes == blob.stat().st_size
    assert os.listdir(model.folder) == ["puna-source.json"]
    assert [check.verdict for check in verify(model)] == ["ok"]
    assert store.path_of("tiny-1b") == blob
    assert pull("ollama:tiny:1b") == model
    assert store.remove("tiny-1b") == model
    assert blob.exists()
    assert store.installed() == []


def test_a_name_of_the_catalogue_is_looked_for_there_first(
    ollama: Path, hub_cache: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    blob = put_in_ollama(ollama, gguf, "registry.ollama.ai/library/llama3.2/1b")
    model = pull("llama3.2-1b")
    assert (model.name, model.path) == ("llama3.2-1b-instruct", blob)
    assert model.source is not None
    assert model.source.licence == "Llama 3.2 Community License"


def test_what_cannot_be_read_is_passed_over(
    ollama: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    gguf.write_bytes(b"GGUF of another kind")
    put_in_ollama(ollama, gguf, "registry.ollama.ai/library/llama3.2/1b")
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:1 cannot be reached"):
        pull("llama3.2-1b")
    with pytest.raises(CheckpointError):
        pull("llama3.2-1b", source="ollama")


def test_what_ollama_does_not_have(ollama: Path) -> None:
    with pytest.raises(
        StoreError, match=r"Ollama has no model 'llama3\.2:1b' on this machine; `ollama list` says"
    ):
        pull("llama3.2-1b", source="ollama")


def put_in_hub_cache(root: Path, folder: Path, repository: str) -> Path:
    """As huggingface_hub lays it out: links to blobs that are named by their checksums."""
    model = root / f"models--{repository.replace('/', '--')}"
    snapshot = model / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (model / "blobs").mkdir()
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    for path in folder.iterdir():
        data = path.read_bytes()
        is_large = path.suffix == ".safetensors"
        name = hashlib.sha256(data) if is_large else hashlib.sha1(b"blob %d\0" % len(data) + data)
        (model / "blobs" / name.hexdigest()).write_bytes(data)
        (snapshot / path.name).symlink_to(model / "blobs" / name.hexdigest())
    return snapshot


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_model_of_the_hub_s_cache_is_linked(
    hub_cache: Path, ollama: Path, hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    snapshot = put_in_hub_cache(hub_cache, hf_folder, "meta-llama/Llama-3.2-1B-Instruct")
    model = pull("llama3.2-1b")
    assert (model.name, model.path, model.is_linked) == ("llama3.2-1b-instruct", snapshot, True)
    assert {check.verdict for check in verify(model)} == {"ok"}
    opened = open_model("llama3.2-1b", "bf16")
    assert (opened.name, opened.checkpoint.path) == ("llama3.2-1b-instruct", snapshot)
    assert not store.packed_folder(model.name).exists()
    (snapshot / "config.json").resolve().write_bytes(b"{}")
    assert {check.name: check.verdict for check in verify(model)}["config.json"] == "damaged"
    store.remove("llama3.2-1b")
    assert (snapshot / "model.safetensors").exists()


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_half_a_model_of_the_hub_s_cache(hub_cache: Path, hf_folder: Path, missing: str) -> None:
    snapshot = put_in_hub_cache(hub_cache, hf_folder, "a/b")
    assert find_in_hub_cache("a/b") is not None
    (snapshot / missing).resolve().unlink()
    assert find_in_hub_cache("a/b") is None


def test_a_sharded_model_of_the_hub_s_cache(hub_cache: Path, hf_folder: Path) -> None:
    (hf_folder / "model.safetensors").rename(hf_folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}
    (hf_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    snapshot = put_in_hub_cache(hub_cache, hf_folder, "a/b")
    assert find_in_hub_cache("a/b") is None
    shutil.copy(snapshot / "model-00001-of-00002.safetensors", snapshot / "model-00002-of-00002.safetensors")
    found = find_in_hub_cache("a/b")
    assert found is not None
    assert found.path == snapshot


@pytest.mark.parametrize("revision", ["../..", "", "a b", "\0"])
def test_a_revision_that_leads_elsewhere(hub_cache: Path, hf_folder: Path, revision: str) -> None:
    snapshot = put_in_hub_cache(hub_cache, hf_folder, "a/b")
    (snapshot.parents[1] / "refs" / "main").write_text(revision)
    assert find_in_hub_cache("a/b") is None
    assert find_in_hub_cache("nobody/nothing") is None


def test_a_path_is_used_in_place(gguf: Path, hf_folder: Path) -> None:
    model = pull(str(gguf))
    assert (model.name, model.path, model.n_bytes) == ("tiny", gguf, gguf.stat().st_size)
    assert [check.verdict for check in verify(model)] == ["size only"]
    folder = pull(str(hf_folder))
    assert folder.path == hf_folder
    assert folder.n_bytes == sum(path.stat().st_size for path in hf_folder.iterdir())
    assert [model.name for model in store.installed()] == ["model", "tiny"]
    gguf.write_bytes(b"GGUF")
    assert [check.verdict for check in verify(model)] == ["damaged"]
    store.remove("tiny")
    store.remove("model")
    assert gguf.exists()
    assert (hf_folder / "config.json").exists()


def test_a_path_that_is_gone(gguf: Path) -> None:
    model = pull(str(gguf))
    gguf.unlink()
    (check,) = verify(model)
    assert (check.verdict, check.detail) == ("missing", f"{gguf}: No such file or directory")
    listed = store.find("tiny")
    assert listed is not None
    assert (listed.is_whole, listed.n_bytes) == (False, 0)
    with pytest.raises(CheckpointError, match=f"{gguf} does not exist"):
        open_model("tiny", "auto")


def test_a_path_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="is not a model file"):
        pull(str(tmp_path / "notes.txt"))
    assert store.installed() == []


def test_two_paths_of_the_same_name(gguf: Path, tmp_path: Path) -> None:
    pull(str(gguf))
    (tmp_path / "other").mkdir()
    shutil.copy(gguf, tmp_path / "other" / "tiny.gguf")
    with pytest.raises(
        StoreError, match=f"the store has another model tiny, from path:{gguf}; `puna rm tiny`"
    ):
        pull(str(tmp_path / "other" / "tiny.gguf"))
