"""Models from a stand-in for Hugging Face."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.models.servers import COMMIT, Hub, send, send_file

from puna.errors import CheckpointError, ConfigError, DownloadError, StoreError, UnknownModelError
from puna.models import store
from puna.models.catalogue import resolve
from puna.models.digests import digest_of
from puna.models.progress import Fetch, Silent, Transfer
from puna.models.pull import pull
from puna.models.source_file import read_source
from puna.models.sources.huggingface import parse_spec, plan_repository, select_files
from puna.models.verify import verify

REPOSITORY = "meta-llama/Llama-3.2-1B-Instruct"
NAME = "llama3.2-1b-instruct"
WEIGHTS = bytes(range(256)) * 2000
FILES = {
    "model.safetensors": WEIGHTS,
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}" * 1000,
    "LICENSE.txt": b"terms",
    "README.md": b"not needed",
    "original/consolidated.00.pth": b"the same weights again",
    ".gitattributes": b"",
}
NEEDED = ["LICENSE.txt", "config.json", "model.safetensors", "tokenizer.json"]


class Watcher(Silent):
    def __init__(self) -> None:
        self.fetches: list[Fetch] = []
        self.steps: list[str] = []
        self.transfers: list[Transfer] = []

    def begin(self, fetch: Fetch) -> None:
        self.fetches.append(fetch)

    def step(self, text: str) -> None:
        self.steps.append(text)

    def advance(self, transfer: Transfer) -> None:
        self.transfers.append(transfer)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr("puna.models.download.time.sleep", lambda _: None)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))


def serve(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], repository: str = REPOSITORY) -> Hub:
    hub = Hub(repository, files)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    return hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = serve(monkeypatch, FILES)
    yield hub
    hub.close()


def weights_path() -> str:
    return f"/{REPOSITORY}/resolve/{COMMIT}/model.safetensors"


def test_a_model_of_the_catalogue(hub: Hub) -> None:
    watcher = Watcher()
    model = pull("llama3.2:1b", progress=watcher)
    assert model == store.find(NAME)
    assert (model.path, model.name) == (store.home() / "models" / NAME, NAME)
    assert sorted(os.listdir(model.folder)) == [*NEEDED[:3], "puna-source.json", NEEDED[3]]
    assert {name: (model.folder / name).read_bytes() for name in NEEDED} == {n: FILES[n] for n in NEEDED}
    assert model.source is not None
    assert (model.source.origin, model.source.revision) == (f"hf:{REPOSITORY}", COMMIT)
    assert [check.verdict for check in verify(model)] == ["ok"] * 4
    total = sum(len(FILES[name]) for name in NEEDED)
    row = resolve(NAME)
    assert watcher.fetches == [
        Fetch(
            name=NAME,
            origin=f"hf:{REPOSITORY}",
            n_bytes=total,
            licence="Llama 3.2 Community License",
            licence_url=row.licence.url,
            duties=row.licence.duties,
        )
    ]
    done = [transfer.done_bytes for transfer in watcher.transfers]
    assert done == sorted(done)
    assert (done[-1], watcher.transfers[-1].total_bytes) == (total, total)
    assert os.listdir(store.home() / "downloads") == [f".{NAME}.lock"]


def test_what_is_there_is_not_asked_for_again(hub: Hub) -> None:
    first = pull("llama3.2:1b")
    hub.requests.clear()
    assert pull(NAME) == pull(f"hf:{REPOSITORY}") == first
    assert store.path_of("Llama3.2-1B-Instruct") == first.path
    assert hub.requests == []


def test_large_files_lie_elsewhere_and_the_token_does_not_go_there(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated, hub.tokens = "manual", {"hf_secret"}
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pull(NAME)
    assert {request.get("Authorization", request.get("authorization")) for request in hub.requests} == {
        "Bearer hf_secret"
    }
    assert len(hub.store.requests) == 1
    assert not {"authorization"} & {name.lower() for name in hub.store.requests[0]}
    text = (store.home() / "models" / NAME / "puna-source.json").read_text()
    assert "hf_secret" not in text


def test_a_gated_model_without_a_token(hub: Hub) -> None:
    hub.gated = "manual"
    with pytest.raises(DownloadError) as caught:
        pull(NAME)
    message = str(caught.value)
    assert f"{REPOSITORY} is gated and this machine has no token" in message
    assert f"1. Open {hub.url}/{REPOSITORY}, log in, and accept the terms" in message
    assert f"{hub.url}/settings/tokens" in message
    assert "3. Run `hf auth login`" in message
    assert hub.asked("model.safetensors") == []
    assert store.installed() == []


def test_a_gated_model_with_a_token_that_may_not(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated, hub.tokens = "manual", {"of somebody else"}
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    with pytest.raises(
        DownloadError, match=f"{REPOSITORY} is gated and your account has no access to it"
    ) as e:
        pull(NAME)
    assert "hf_mine" not in str(e.value)
    assert store.installed() == []


@pytest.mark.parametrize("token", [None, "hf_x"])
def test_a_repository_that_is_not_there_or_private(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(
        DownloadError, match="Hugging Face shows no nobody/nothing to you: it does not exist, or"
    ):
        pull("hf:nobody/nothing")


def test_a_token_that_is_not_known(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    message = "Invalid credentials in Authorization header"
    hub.bad[f"/api/models/{REPOSITORY}"] = [
        lambda handler: send(handler, 401, b"{}", X_Error_Message=message)
    ]
    with pytest.raises(DownloadError, match="does not know the token of this machine") as caught:
        pull(NAME)
    assert "hf_old" not in str(caught.value)


def test_a_server_that_fails_on_the_list(hub: Hub) -> None:
    hub.bad[f"/api/models/{REPOSITORY}"] = [lambda handler: send(handler, 500, b"oops")] * 20
    with pytest.raises(DownloadError, match=f"HTTP status 500 for {REPOSITORY}; try again later"):
        pull(NAME)


def test_a_list_that_is_none(hub: Hub) -> None:
    for body in (b"<html>", b"[]", b"{}", b'{"id": 3, "siblings": 4}'):
        hub.bad[f"/api/models/{REPOSITORY}"] = [lambda handler, body=body: send(handler, 200, body)]
        with pytest.raises(DownloadError):
            pull(NAME)
    assert store.installed() == []


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(
        DownloadError, match=r"http://127\.0\.0\.1:1 cannot be reached: .*look at the network"
    ):
        pull(NAME)


@pytest.mark.parametrize("address", ["http://[", "hub.example", "ftp://hub.example", "https://"])
def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(ConfigError, match=r"HF_ENDPOINT must be an address such as https://huggingface\.co"):
        pull(NAME)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ({"license": "mit"}, "mit"),
        ({"license": "other", "license_name": "my-terms"}, "my-terms"),
        ({"license": "other"}, "other"),
        ({"license": ["mit"]}, None),
        ([1], None),
        (None, None),
    ],
)
def test_the_licence_of_a_repository(monkeypatch: pytest.MonkeyPatch, card: Any, licence: str | None) -> None:
    hub = serve(monkeypatch, {"model.gguf": b"GGUF"}, "some/repo")
    hub.listing = {"cardData": card, "sha": ["no commit"]}

    try:
        plan = plan_repository("some/repo")
    finally:
        hub.close()
    assert (plan.licence, plan.revision) == (licence, "main")


def test_offline_mode(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="is not on this machine and HF_HUB_OFFLINE forbids to fetch it"):
        pull(NAME)


def test_a_download_that_breaks_goes_on(hub: Hub) -> None:
    path = f"/{hashlib.sha256(WEIGHTS).hexdigest()}"
    hub.store.bad[path] = [
        lambda handler: send_file(handler, WEIGHTS, sent=100_000),
        *[lambda handler: send(handler, 503)] * 5,
    ]
    with pytest.raises(
        DownloadError, match="100000 of 512000 bytes arrived, then 5 attempts brought no more"
    ):
        pull(NAME)
    assert store.installed() == []
    hub.store.requests.clear()
    watcher = Watcher()
    pull(NAME, progress=watcher)
    assert [request.get("Range") for request in hub.store.requests] == ["bytes=100000-"]
    assert (store.home() / "models" / NAME / "model.safetensors").read_bytes() == WEIGHTS
    assert watcher.transfers[0].done_bytes == 100_000


def test_what_is_whole_is_not_fetched_twice(hub: Hub) -> None:
    hub.bad[f"/{REPOSITORY}/resolve/{COMMIT}/tokenizer.json"] = [lambda handler: send(handler, 404)]
    with pytest.raises(DownloadError, match=f"shows no {REPOSITORY}"):
        pull(NAME)
    pull(NAME)
    assert len(hub.store.requests) == 1


def test_a_new_revision_in_the_middle(hub: Hub) -> None:
    """The parts of the old files are not made the beginnings of the new."""
    hub.bad[f"/{REPOSITORY}/resolve/{COMMIT}/tokenizer.json"] = [lambda handler: send(handler, 404)]
    with pytest.raises(DownloadError):
        pull(NAME)
    changed = {**FILES, "config.json": FILES["config.json"][::-1], "model.safetensors": WEIGHTS[::-1]}
    hub.files = changed
    hub.store.files = {f"/{hashlib.sha256(data).hexdigest()}": data for data in changed.values()}
    model = pull(NAME)
    assert (model.folder / "config.json").read_bytes() == FILES["config.json"][::-1]
    assert (model.folder / "model.safetensors").read_bytes() == WEIGHTS[::-1]


def test_a_file_that_is_not_what_the_list_says(hub: Hub) -> None:
    path = f"/{REPOSITORY}/resolve/{COMMIT}/config.json"
    wrong = b"x" * len(FILES["config.json"])
    hub.bad[path] = [lambda handler: send(handler, 200, wrong)]
    with pytest.raises(
        DownloadError, match=r"needs the git SHA-1 [0-9a-f]{40}, got git SHA-1 [0-9a-f]{40}; what"
    ):
        pull(NAME)
    assert store.installed() == []
    pull(NAME)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rfilename": "model.safetensors", "size": -1, "blobId": "0" * 40}, "has -1 bytes"),
        ({"rfilename": "model.safetensors", "size": 1 << 60, "blobId": "0" * 40}, f"has {1 << 60} bytes"),
        ({"rfilename": "model.safetensors"}, "has None bytes"),
        ({"rfilename": "model.safetensors", "size": 5, "blobId": "zz"}, "the checksum git SHA-1 zz"),
        ({"rfilename": "model.safetensors", "size": True, "blobId": "0" * 40}, "has True bytes"),
        ({"rfilename": ["model.safetensors"], "size": 5, "blobId": "0" * 40}, "holds no model"),
        ({"rfilename": None, "size": 5, "blobId": "0" * 40}, "holds no model"),
    ],
)
def test_a_list_that_lies(hub: Hub, change: dict[str, Any], words: str) -> None:
    hub.listing = {"siblings": [change]}
    with pytest.raises(DownloadError, match=words):
        pull(NAME)


@pytest.mark.parametrize("name", ["../model.gguf", "/etc/model.gguf", "a\\b.gguf", ".gguf", "a\nb.gguf"])
def test_names_that_lead_elsewhere(monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path) -> None:
    hub = serve(monkeypatch, {name: b"GGUF"}, "some/repo")
    try:
        with pytest.raises(DownloadError, match="needed is a plain file name without folders"):
            pull("hf:some/repo")
    finally:
        hub.close()
    assert store.installed() == []
    assert not list(store.home().rglob("*.gguf"))


def test_a_gguf_file_of_a_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"sub/tiny-Q4_0.gguf": b"GGUF 4", "tiny-Q8_0.gguf": b"GGUF 8", "config.json": b"{}"}
    hub = serve(monkeypatch, files, "bart/Tiny-GGUF")
    try:
        model = pull("hf:bart/Tiny-GGUF:sub/tiny-Q4_0.gguf")
        with pytest.raises(DownloadError, match=r"did you mean 'tiny-Q8_0\.gguf'"):
            pull("hf:bart/Tiny-GGUF:tiny-Q8.gguf")
        with pytest.raises(
            DownloadError, match="holds 2 GGUF files; name one, as hf:bart/Tiny-GGUF:sub/tiny-Q4"
        ):
            pull("hf:bart/Tiny-GGUF")
    finally:
        hub.close()
    assert (model.name, model.path.read_bytes()) == ("tiny-q4_0", b"GGUF 4")
    assert model.path == model.folder / "tiny-Q4_0.gguf"
    assert model.source is not None
    assert (model.source.licence, model.source.duties) == ("llama3.2", ())
    assert store.path_of("tiny-q4_0") == model.path


def test_another_model_of_the_same_name(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"model.gguf": b"GGUF"}
    first = serve(monkeypatch, files, "one/Same")
    pull("hf:one/Same")
    first.close()
    with pytest.raises(StoreError) as caught:
        pull("hf:two/same")
    assert str(caught.value) == (
        "the store has another model same, from hf:one/Same; `puna rm same` makes room for hf:two/same"
    )


def test_a_name_of_the_catalogue_is_not_taken_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = serve(monkeypatch, {"model.gguf": b"GGUF"}, "some/Llama-3.2-1B-Instruct")
    try:
        assert pull("hf:some/Llama-3.2-1B-Instruct").name == "some-llama-3.2-1b-instruct"
    finally:
        hub.close()
    assert store.find(NAME) is None


def test_a_cut_model_is_mended(hub: Hub) -> None:
    model = pull(NAME)
    (model.folder / "model.safetensors").write_bytes(WEIGHTS[:10])
    (model.folder / "notes.txt").write_text("mine")
    cut = store.find(NAME)
    assert cut is not None
    assert not cut.is_whole
    hub.requests.clear()
    assert pull(NAME).is_whole
    assert [request["path"] for request in hub.requests[1:]] == [weights_path()]
    assert (model.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (model.folder / "notes.txt").read_text() == "mine"


def test_a_disk_without_room(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5}))
    total = sum(len(FILES[name]) for name in NEEDED)
    with pytest.raises(
        StoreError, match=r"needs 51\d{4} bytes more, the disk has 5 free; make room"
    ) as caught:
        pull(NAME)
    assert int(str(caught.value).split(" needs ")[1].split()[0]) <= total
    assert hub.asked("model.safetensors") == []


SELECTIONS: dict[str, tuple[list[str], list[str]]] = {
    "one file before parts": (
        [
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "config.json",
        ],
        ["model.safetensors", "config.json"],
    ),
    "parts": (
        [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ],
        [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ],
    ),
    "safetensors before pickles": (
        ["pytorch_model.bin", "model.safetensors", "consolidated.00.pth"],
        ["model.safetensors"],
    ),
    "Meta's files": (
        [
            "consolidated.00.pth",
            "consolidated.01.pth",
            "params.json",
            "tokenizer.model",
            "checklist.chk",
            "x.py",
        ],
        ["consolidated.00.pth", "consolidated.01.pth", "checklist.chk", "params.json", "tokenizer.model"],
    ),
    "pickles where there is nothing else": (
        ["pytorch_model.bin", "pytorch_model.bin.index.json", "training_args.bin"],
        ["pytorch_model.bin"],
    ),
    "the only GGUF file": (["a.gguf", "config.json"], ["a.gguf"]),
    "a GGUF file in parts": (
        ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"],
        ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"],
    ),
    "an ExecuTorch program": (["guard.pte", "params.json"], ["guard.pte", "params.json"]),
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_which_files_are_needed(case: str) -> None:
    there, needed = SELECTIONS[case]
    assert select_files(there, "a/b") == needed


def test_the_parts_of_a_gguf_file() -> None:
    names = ["x-Q4-00001-of-00002.gguf", "x-Q4-00002-of-00002.gguf", "x-Q8.gguf", "x-Q4.gguf"]
    assert select_files(names, "a/b", "x-Q4-00001-of-00002.gguf") == names[:2]
    assert select_files(names, "a/b", "x-Q4.gguf") == ["x-Q4.gguf"]


def test_a_repository_without_a_model() -> None:
    with pytest.raises(DownloadError, match="a/b holds no model: no safetensors, Meta, PyTorch or GGUF file"):
        select_files(["README.md", "adapter_model.safetensors"], "a/b")


@pytest.mark.parametrize("spec", ["hf:", "hf:x", "hf:/x", "hf:a/b/c", "hf:a b/c", "hf:a/b:"])
def test_specs_that_are_none(spec: str) -> None:
    with pytest.raises(ConfigError, match="is written hf:ORG/REPO or hf:ORG/REPO:FILE, got "):
        parse_spec(spec)


def test_a_repository_without_its_prefix() -> None:
    with pytest.raises(UnknownModelError, match="for any model on Hugging Face write hf:nobody/nothing"):
        pull("nobody/nothing")


def test_a_model_that_does_not_run_yet_is_fetched_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = "meta-llama/Prompt-Guard-86M"
    hub = serve(monkeypatch, {"model.safetensors": b"weights", "config.json": b"{}"}, repository)
    try:
        with pytest.raises(
            CheckpointError, match="prompt-guard-86m is a classifier model, which this version"
        ):
            store.path_of("prompt-guard-86m")
        assert hub.requests == []
        assert pull("prompt-guard-86m").is_whole
        assert store.path_of("prompt-guard-86m") == store.home() / "models" / "prompt-guard-86m"
    finally:
        hub.close()


def test_the_note_beside_the_files(hub: Hub) -> None:
    model = pull(NAME)
    source = read_source(model.folder)
    assert source is not None
    for file in source.files:
        assert file.digest is not None
        assert file.size == len(FILES[file.name])
        assert digest_of(model.folder / file.name, file.digest.kind) == file.digest
    assert {file.name: file.digest.kind for file in source.files if file.digest} == {
        "LICENSE.txt": "git-sha1",
        "config.json": "git-sha1",
        "model.safetensors": "sha256",
        "tokenizer.json": "git-sha1",
    }
    assert source.licence == "Llama 3.2 Community License"
    assert '"Built with Llama"' in source.duties[0]
