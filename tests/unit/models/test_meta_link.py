"""Models from a stand-in for Meta's download server, by a signed link."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest
from tests.unit.models.servers import Files, send, send_file

from puna.errors import ConfigError, DownloadError
from puna.models import store
from puna.models.catalogue import resolve
from puna.models.pull import pull
from puna.models.sources.meta import file_url, read_checklist
from puna.models.verify import verify

SHARDS = {f"consolidated.{i:02d}.pth": bytes([i]) * 100_000 for i in range(2)}
FILES = {**SHARDS, "params.json": b'{"dim": 8}', "tokenizer.model": b"IQ== 0\n"}


def checklist(files: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.md5(data).hexdigest()}  {name}\n" for name, data in files.items()).encode()


def served(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"/{folder}/{name}": data for name, data in {**files, "checklist.chk": checklist(files)}.items()}


@pytest.fixture
def server() -> Iterator[Files]:
    server = Files(served("Llama-3.1-70B-Instruct", FILES))
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("puna.models.download.time.sleep", lambda _: None)


def link(server: Files) -> str:
    return f"{server.url}/*?Policy=abc~_&Signature=s-e-c-r-e-t&Key-Pair-Id=K1"


def test_a_model_in_parts(server: Files) -> None:
    model = pull("Llama3.1-70B-Instruct", source="meta", url=link(server))
    assert (model.name, model.path) == ("llama3.1-70b-instruct", model.folder)
    assert {name: (model.folder / name).read_bytes() for name in FILES} == FILES
    assert sorted(os.listdir(model.folder)) == sorted([*FILES, "puna-source.json"])
    assert [check.verdict for check in verify(model)] == ["ok"] * 4
    assert model.source is not None
    assert model.source.origin == "meta:Llama-3.1-70B-Instruct"
    assert {file.name: file.digest.value for file in model.source.files if file.digest} == {
        name: hashlib.md5(data).hexdigest() for name, data in FILES.items()
    }
    assert "s-e-c-r-e-t" not in (model.folder / "puna-source.json").read_text()
    assert all(
        r["full"].endswith("?Policy=abc~_&Signature=s-e-c-r-e-t&Key-Pair-Id=K1") for r in server.requests
    )


def test_the_folder_s_older_name(server: Files) -> None:
    server.files = served("8b_instruction_tuned", FILES)
    model = pull("llama3:8b", source="meta", url=link(server))
    assert model.source is not None
    assert model.source.origin == "meta:8b_instruction_tuned"


def test_llama_2_s_tokenizer_lies_beside_the_folders(server: Files) -> None:
    files = {"consolidated.00.pth": b"weights", "params.json": b"{}"}
    server.files = {**served("llama-2-7b-chat", files), "/tokenizer.model": b"pieces"}
    model = pull("llama2:7b", source="meta", url=link(server))
    assert (model.folder / "tokenizer.model").read_bytes() == b"pieces"
    assert {check.name: check.verdict for check in verify(model)} == {
        "consolidated.00.pth": "ok",
        "params.json": "ok",
        "tokenizer.model": "size only",
    }


def test_a_link_that_has_expired(server: Files) -> None:
    server.files = {}
    with pytest.raises(DownloadError) as caught:
        pull("llama3.1:70b", source="meta", url=link(server))
    assert str(caught.value) == (
        "Meta's server does not give out llama3.1-70b-instruct (HTTP status 403): the link of its e-mail "
        "works for a day and a few downloads, and only for the models it was asked for. Ask for a new one at "
        "https://www.llama.com/llama-downloads; what has arrived is kept"
    )


def test_a_link_that_expires_half_way_and_a_new_one(server: Files) -> None:
    second = "/Llama-3.1-70B-Instruct/consolidated.01.pth"
    data = SHARDS["consolidated.01.pth"]
    server.bad[second] = [
        lambda handler: send_file(handler, data),  # asked for its size
        lambda handler: send_file(handler, data, sent=40_000),
        lambda handler: send(handler, 403),
    ]
    with pytest.raises(DownloadError, match=r"HTTP status 403.*Ask for a new one") as caught:
        pull("llama3.1:70b", source="meta", url=link(server))
    assert "s-e-c-r-e-t" not in str(caught.value)
    assert store.installed() == []
    server.requests.clear()
    pull("llama3.1:70b", source="meta", url=link(server).replace("s-e-c-r-e-t", "new"))
    ranges = [request.get("Range") for request in server.asked("consolidated.01.pth")]
    assert ranges == ["bytes=0-0", "bytes=40000-"]
    assert [request.get("Range") for request in server.asked("consolidated.00.pth")] == ["bytes=0-0"]


def test_a_shard_that_is_not_what_the_checklist_says(server: Files) -> None:
    server.files["/Llama-3.1-70B-Instruct/consolidated.01.pth"] = b"?" * 100_000
    with pytest.raises(
        DownloadError, match=f"needs the MD5 {hashlib.md5(SHARDS['consolidated.01.pth']).hexdigest()}"
    ):
        pull("llama3.1:70b", source="meta", url=link(server))
    assert store.installed() == []


@pytest.mark.parametrize(
    "bad",
    [
        "", "https://download.example.com/x?Policy=a", "*", "http://download.example.com/*", "ftp://x/*", "https:///*",
        "https://[/*", "https://x/y?Policy=*", "file:///*",
    ],
)  # fmt: skip
def test_links_that_are_none(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"`--url` must be the whole link of Meta's e-mail"):
        file_url(bad, "folder/file")


def test_a_link_takes_the_path_once() -> None:
    assert file_url("https://x/*?P=a*b", "f/params.json") == "https://x/f/params.json?P=a*b"


@pytest.mark.parametrize(("source", "url"), [("meta", None), (None, "https://x/*"), ("hf", "https://x/*")])
def test_link_and_source_go_together(source: str | None, url: str | None) -> None:
    with pytest.raises(ConfigError, match="`--source meta` and `--url` go together"):
        pull("llama3.1:70b", source=source, url=url)


def test_what_meta_does_not_have(server: Files) -> None:
    with pytest.raises(ConfigError, match="smollm2-135m-instruct does not come from Meta"):
        pull("smollm2", source="meta", url=link(server))


MD5 = "d41d8cd98f00b204e9800998ecf8427e"
BAD_LISTS = {
    "": "lists no files",
    f"{MD5}  checklist.chk": "lists no files",
    f"{MD5}  ../params.json": "names a file '../params.json'",
    f"{MD5}  /etc/passwd": "names a file '/etc/passwd'",
    f"{MD5}  .bashrc": "names a file '.bashrc'",
    f"{MD5}": "names a file ''",
    "<html>  <body>": "names a file '<body>'",
    f"{MD5[:-1]}  params.json": "needed are lines of a checksum and a new name",
    f"{MD5}  a.pth\n{MD5}  a.pth": "needed are lines of a checksum and a new name",
}


@pytest.mark.parametrize("text", BAD_LISTS)
def test_checklists_that_are_none(text: str) -> None:
    with pytest.raises(DownloadError) as caught:
        read_checklist(text, "folder")
    assert "folder/checklist.chk" in str(caught.value)
    assert BAD_LISTS[text] in str(caught.value)


def test_forms_of_a_checklist() -> None:
    sha = hashlib.sha256(b"").hexdigest()
    text = f"{MD5.upper()}  a.pth\r\n\n{MD5} *./b.pth\n{sha}  c.json\n"
    assert [(name, digest.kind, digest.value) for name, digest in read_checklist(text, "f")] == [
        ("a.pth", "md5", MD5),
        ("b.pth", "md5", MD5),
        ("c.json", "sha256", sha),
    ]


def test_every_meta_row_has_a_folder() -> None:
    assert resolve("llama3.1-405b").meta_folders[0] == "Llama-3.1-405B-Instruct-MP8"
    assert resolve("Llama-2-13b").meta_folders == ("llama-2-13b",)
    assert resolve("Llama3.2-1B").meta_folders == ("Llama-3.2-1B",)
