"""API keys: on every route but health, and nowhere as they are."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from llguidance import LLMatcher
from tests.unit.server.conftest import hosted
from tests.unit.server.live import Live, running
from typer.testing import CliRunner

from puna.cli import app
from puna.constraints import Compiler, Constraint
from puna.errors import ConfigError
from puna.server.door.keys import hashed, key_line, new_key, read_keys
from puna.server.hosting.hosted import HostedModel
from puna.server.settings import ServerSettings

KEY, OTHER = new_key(), new_key()


@pytest.fixture(scope="module")
def live(scripted_model: HostedModel) -> Iterator[Live]:
    scripted_model.loaded = None
    keys = (hashed("ada", KEY), hashed("bob", OTHER))
    with running([scripted_model], keys=keys) as server:
        yield server


def routes(live: Live) -> list[tuple[str, str]]:
    paths = live.http.get("/openapi.json", headers={"Authorization": f"Bearer {KEY}"}).json()["paths"]
    found = [(method, re.sub(r"{\w+}", "x", path)) for path, methods in paths.items() for method in methods]
    more = ("/metrics", "/docs", "/docs/files/swagger-ui.css", "/openapi.json", "/", "/nothing")
    return [*found, *(("get", path) for path in more)]


def test_every_route_but_health_needs_a_key(live: Live) -> None:
    asked = routes(live)
    assert len(asked) > 15
    for prefix in ("", "/v1/openai"):
        for method, path in asked:
            status = live.http.request(method, prefix + path).status_code
            is_health = path == "/v1/health"
            assert status == (200 if is_health else 401), (method, prefix + path)
    assert live.http.head("/v1/health").status_code == 200
    assert live.http.post("/v1/health").status_code == 401
    assert live.http.get("/v1/health/").status_code == 401


@pytest.mark.parametrize(
    "line",
    [
        "HEAD /v1/models",
        "HEAD /v1/health/",
        "OPTIONS /v1/models",
        "GET //v1/models",
        "GET /V1/models",
        "GET /v1/models/",
        "GET /v1/health/../models",
        "GET /v1/health%2f..%2fmodels",
        "GET /v1/health;/models",
        "GET http://localhost/v1/models",
        "TRACE /v1/health",
    ],
)
def test_no_way_to_write_a_route_goes_past_the_key(live: Live, line: str) -> None:
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 401"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"x-api-key": "é"},
    ],
)
def test_a_wrong_key_is_refused(live: Live, headers: dict[str, str]) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = live.http.get("/v1/models", headers=encoded)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_right_key_is_let_in_by_either_header(live: Live) -> None:
    for headers in (
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer {OTHER}"},
        {"x-api-key": KEY},
    ):
        assert live.http.get("/v1/models", headers=headers).status_code == 200
    with openai.OpenAI(base_url=live.url, api_key=KEY) as client:
        assert [model.id for model in client.models.list()] == ["scripted"]
    with (
        openai.OpenAI(base_url=live.url, api_key="wrong") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_a_key_does_not_find_what_is_cached_of_another_s_prompts(tiny_folder: Path) -> None:
    def n_cached(key: str) -> int:
        body = {
            "model": "tiny",
            "prompt": "a confidence that takes several blocks of the cache",
            "max_tokens": 1,
        }
        answer = live.http.post("/v1/completions", json=body, headers={"x-api-key": key}).json()
        return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    with running([hosted(tiny_folder)], keys=(hashed("ada", KEY), hashed("bob", OTHER))) as live:
        assert n_cached(KEY) == 0
        whole = n_cached(KEY)
        assert whole > 0
        assert n_cached(OTHER) == 0
        assert n_cached(OTHER) == whole


def test_a_key_does_not_find_what_is_compiled_of_another_s_constraints(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    compile_one = Compiler._compile

    def count(compiler: Compiler, constraint: Constraint, text: str) -> LLMatcher:
        compiled.append(text)
        return compile_one(compiler, constraint, text)

    monkeypatch.setattr(Compiler, "_compile", count)
    held = {"type": "regex", "regex": "a+"}
    asked = {"messages": [{"role": "user", "content": "a"}], "model": "tiny", "max_tokens": 1}
    wanted = [
        ("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 1, "response_format": held}),
        ("/v1/chat/completions", {**asked, "response_format": held}),
    ]
    with running([hosted(tiny_folder)], keys=(hashed("ada", KEY), hashed("bob", OTHER))) as live:
        for path, body in wanted:
            for key in (KEY, OTHER, KEY, OTHER):
                assert live.http.post(path, json=body, headers={"x-api-key": key}).status_code == 200
    assert sum("/a+/" in text for text in compiled) == 2  # once for each key


def test_two_keys_at_once_are_refused(live: Live) -> None:
    headers = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer wrong")]
    assert live.http.get("/v1/models", headers=headers).status_code == 400


def test_a_file_holds_digests_only(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    done = CliRunner().invoke(app, ["key", "ada", "--file", str(file)])
    assert done.exit_code == 0
    key = done.stdout.split()[0]
    assert key not in file.read_text()
    assert read_keys(file) == (hashed("ada", key),)
    assert file.stat().st_mode & 0o077 == 0
    CliRunner().invoke(app, ["key", "bob", "--file", str(file)])
    assert [each.name for each in read_keys(file)] == ["ada", "bob"]


@pytest.mark.parametrize("text", ["", "# nothing\n", KEY, f"ada {KEY}", "ada sha256:12"])
def test_a_file_that_is_none_is_an_error_without_its_text(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(text)
    with pytest.raises(ConfigError, match="puna key") as caught:
        read_keys(file)
    assert KEY not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(key_line(hashed("ada", KEY)))
    file.chmod(mode)
    with pytest.raises(ConfigError, match=rf"may be written by others .* `chmod go-w {file}`"):
        read_keys(file)
    file.chmod(0o644)
    assert read_keys(file) == (hashed("ada", KEY),)


def test_beyond_this_machine_keys_are_needed() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", "127.0.0.1.example.org"):
        with pytest.raises(ConfigError, match="--insecure"):
            ServerSettings(host=host)
        ServerSettings(host=host, is_insecure=True)
        ServerSettings(host=host, keys=(hashed("a", KEY),))
    for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8"):
        ServerSettings(host=host)


def test_a_line_is_as_it_is_told() -> None:
    assert (
        key_line(hashed("a", "b"))
        == "a sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
    )
