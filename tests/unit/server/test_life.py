"""Load and life: clients that leave, time that runs out and too many at once."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.unit.server.conftest import hosted
from tests.unit.server.live import Live, running

from puna.llama import Llama
from puna.server.door.busy import ANSWERING, CrowdCheck
from puna.server.door.protocol import HttpProtocol
from puna.server.door.sizes import SizeCheck
from puna.server.errors import ApiError
from puna.server.hosting.hosted import HostedModel
from puna.server.routes import ROUTERS
from puna.server.run import Server
from puna.server.settings import ServerSettings

CHAT = "/v1/chat/completions"
SILENT: Any = {"model": "scripted", "messages": [{"role": "user", "content": "fall silent"}]}
ENDLESS: Any = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hum"}],
    "logit_bias": {"257": -100},
    "stream": True,
}


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something comes to be, and fail where it never does."""
    end_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end_s, "it never came to be"
        time.sleep(0.005)


@contextmanager
def serving(model: HostedModel, **settings: Any) -> Iterator[Live]:
    model.loaded = None
    with running([model], **settings) as live:
        live.http.post("/v1/tokenize", json={"model": model.id, "prompt": ""})
        yield live


def admission(live: Live) -> Any:
    (model,) = live.services.pool.models.values()
    assert model.loaded is not None
    return model.loaded.admission


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_everything(scripted_model: HostedModel, stream: bool) -> None:
    with serving(scripted_model) as live:
        body = json.dumps({**SILENT, "stream": stream}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", live.port)) as connection:
            connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_for(lambda: admission(live).n_running == 1)
        wait_for(lambda: admission(live).n_running == 0)
        assert admission(live).reserved_tokens == 0
        engine: Any = live.services.pool.models["scripted"].loaded.llama.engine  # type: ignore[union-attr]
        assert len(engine.cancelled) >= 1


def test_a_client_that_leaves_frees_the_engine_s_blocks(tiny_folder: Path) -> None:
    with serving(hosted(tiny_folder)) as live:
        engine = live.services.pool.models["tiny"].loaded.llama.engine  # type: ignore[union-attr]
        for _ in range(5):
            with live.http.stream("POST", CHAT, json={**ENDLESS, "n": 4}) as answer:
                next(answer.iter_lines())
        wait_for(lambda: engine.free_cache_tokens == engine.cache_tokens)
        assert admission(live).reserved_tokens == 0


def test_a_client_that_leaves_the_queue_frees_its_place(scripted_model: HostedModel) -> None:
    with serving(scripted_model, max_running=1) as live:
        with live.http.stream("POST", CHAT, json={**SILENT, "stream": True}) as first:
            lines = first.iter_lines()  # kept, since the client hangs up when it goes
            next(lines)
            with pytest.raises(httpx2.ReadTimeout):
                live.http.post(CHAT, json=SILENT, timeout=0.2)
            wait_for(lambda: admission(live).n_waiting == 0)
            assert admission(live).n_running == 1
        wait_for(lambda: admission(live).n_running == 0)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/chat/completions", {"messages": [{"role": "user", "content": "hum " * 100}]}),
        ("/completions", {"prompt": "hum " * 100}),
        ("/responses", {"input": "hum " * 100}),
        ("/messages", {"messages": [{"role": "user", "content": "hum " * 100}], "max_tokens": 1}),
    ],
)
def test_a_prompt_that_cannot_fit_does_not_wait_to_be_refused(
    scripted: Llama,
    scripted_model: HostedModel,
    route: str,
    body: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scripted.engine, "context_tokens", 64)  # the cache has more
    with serving(scripted_model, max_running=1) as live:
        with live.http.stream("POST", CHAT, json={**SILENT, "stream": True}) as first:
            lines = first.iter_lines()
            next(lines)
            answer = live.http.post(f"/v1{route}", json={"model": "scripted", **body}, timeout=10)
            assert answer.status_code == 400
            assert "too long" in answer.json()["error"]["message"]
        wait_for(lambda: admission(live).n_running == 0)


def test_time_that_runs_out_is_an_error(scripted_model: HostedModel) -> None:
    with serving(scripted_model, timeout_s=0.2) as live:
        answer = live.http.post(CHAT, json=SILENT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        text = live.http.post(CHAT, json={**SILENT, "stream": True}).text
        events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        assert json.loads(events[-2])["error"]["code"] == "timeout"
        assert events[-1] == "[DONE]"
        assert admission(live).n_running == 0


def test_too_many_are_told_when_to_come_back(scripted_model: HostedModel) -> None:
    with serving(scripted_model, max_running=1, max_waiting=0) as live:
        with live.http.stream("POST", CHAT, json={**SILENT, "stream": True}) as first:
            lines = first.iter_lines()  # kept, since the client hangs up when it goes
            next(lines)
            for stream in (False, True):
                answer = live.http.post(CHAT, json={**SILENT, "stream": stream})
                assert answer.status_code == 429
                assert int(answer.headers["Retry-After"]) >= 1
                assert answer.json()["error"]["type"] == "rate_limit_error"
            assert 'puna_refused_total{model="scripted"} 2.0' in live.http.get("/metrics").text
            assert 'puna_running{model="scripted"} 1.0' in live.http.get("/metrics").text
        wait_for(lambda: admission(live).n_running == 0)


@contextmanager
def full(model: HostedModel, **settings: Any) -> Iterator[Live]:
    """A server with one answer, for which there is just room."""
    with serving(model, max_running=1, max_waiting=0, **settings) as live:
        with live.http.stream("POST", CHAT, json={**SILENT, "stream": True}) as first:
            lines = first.iter_lines()
            next(lines)
            yield live
        wait_for(lambda: admission(live).n_running == 0)


@pytest.mark.parametrize("route", ANSWERING)
def test_a_full_server_does_not_look_at_bodies(scripted_model: HostedModel, route: str) -> None:
    assert route in {each.path for group in ROUTERS for each in group.routes if "POST" in each.methods}  # type: ignore[attr-defined]
    with full(scripted_model) as live:
        answer = live.http.post(f"/v1{route}", content=b"{")
        assert (answer.status_code, int(answer.headers["retry-after"])) == (429, 1)
        assert "connection" not in answer.headers
        assert answer.json()["error"]["type"] == "rate_limit_error"
        counted = f'puna_requests_total{{method="POST",route="{route}",status="429"}} 1.0'
        assert counted in live.http.get("/metrics").text


def test_a_full_server_reads_no_more_of_a_body_than_another(scripted_model: HostedModel) -> None:
    with full(scripted_model, max_body_bytes=1000) as live:
        answer = live.http.post(CHAT, content=(b" " * 600 for _ in range(2)))
        assert answer.status_code == 413


def test_too_many_requests_at_once_are_refused_whatever_they_want(scripted_model: HostedModel) -> None:
    with serving(scripted_model, max_requests=1) as live:
        with live.http.stream("POST", CHAT, json={**SILENT, "stream": True}) as first:
            lines = first.iter_lines()
            next(lines)
            answer = live.http.get("/v1/models")
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            assert "1 requests are open" in answer.json()["error"]["message"]
            for path in ("/v1/health", "/metrics", "/v1/admin/state"):
                assert live.http.get(path).status_code == 200
            assert live.http.post("/metrics").status_code == 429
        wait_for(lambda: live.http.get("/v1/models").status_code == 200)


@pytest.mark.parametrize("path", ["/v1/health", "/metrics", "/v1/models"])
async def test_those_that_ask_how_the_server_is_are_not_without_bound(path: str) -> None:
    statuses: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    check = CrowdCheck(app, max_requests=2)
    scope: Any = {"type": "http", "method": "GET", "path": path}
    tasks = [asyncio.create_task(check(scope, None, send)) for _ in range(17)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert statuses.count(429) == (15 if path == "/v1/models" else 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert check._n_open == {True: 0, False: 0}


async def test_bodies_are_held_up_to_a_bound() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        reading.set()
        await asyncio.Event().wait()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * 1000, "more_body": False}

    check = SizeCheck(app, ServerSettings(max_body_bytes=1000))
    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
    }
    tasks = []
    for _ in range(64):
        reading = asyncio.Event()
        tasks.append(asyncio.create_task(check(scope, receive, None)))  # type: ignore[arg-type]
        await reading.wait()
    with pytest.raises(ApiError, match="as many bytes of bodies as it may") as caught:
        await check(scope, receive, None)  # type: ignore[arg-type]
    assert caught.value.status_code == 429
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert check._n_held == 0


@pytest.mark.parametrize("n_letters", [4_000_000, 8_000])  # some 20 MB and 40 KB as ids
def test_a_client_that_does_not_read_is_let_go(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, n_letters: int
) -> None:
    stalled: list[HttpProtocol] = []
    pause, begin = HttpProtocol.pause_writing, HttpProtocol.connection_made

    def connection_made(protocol: HttpProtocol, transport: Any) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        begin(protocol, transport)

    monkeypatch.setattr(HttpProtocol, "connection_made", connection_made)
    monkeypatch.setattr(HttpProtocol, "pause_writing", lambda self: (stalled.append(self), pause(self))[1])
    body = json.dumps({"model": "tiny", "prompt": "a" * n_letters}).encode()
    head = "POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with (
        serving(hosted(tiny_folder), write_timeout_s=0.2) as live,
        socket.socket() as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", live.port))
        connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_for(lambda: bool(stalled))
        wait_for(lambda: stalled[0] not in stalled[0].connections)


def test_connections_are_kept_for_longer_than_clients_keep_them(tiny_folder: Path) -> None:
    with serving(hosted(tiny_folder)) as live:
        assert Server(live.services).config.timeout_keep_alive > 60  # httpx: 5 s, aiohttp: 15 s


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")
def test_what_computes_lets_clients_go_first(tiny_folder: Path) -> None:
    before = {int(each.name) for each in Path("/proc/self/task").iterdir()}
    with serving(hosted(tiny_folder, threads=2)) as live:
        live.http.post(CHAT, json={**ENDLESS, "stream": False, "max_tokens": 1}).raise_for_status()
        loaded: Any = live.services.pool.models["tiny"].loaded
        engine = loaded.llama.engine._thread.native_id
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, engine) == usual + 5
        added = [int(each.name) for each in Path("/proc/self/task").iterdir() if int(each.name) not in before]
        nice = [os.getpriority(os.PRIO_PROCESS, each) for each in added]
        assert nice.count(usual + 5) == 3  # the engine's, its worker, and the one that loads
        assert nice.count(usual) == len(nice) - 3 > 0  # the server's


def test_answers_that_wait_get_their_turn(tiny_folder: Path) -> None:
    body = {**ENDLESS, "stream": False, "seed": 1, "max_tokens": 20}
    with serving(hosted(tiny_folder), max_running=2) as live:
        alone = live.http.post(CHAT, json=body).json()["choices"]
        together = live.http.post(CHAT, json={**body, "n": 12}).json()["choices"]
        assert together[0]["message"] == alone[0]["message"]
        assert len(together) == 12


def test_many_at_once_get_what_each_would_get_alone(tiny_folder: Path) -> None:
    bodies = [
        {
            **ENDLESS,
            "stream": False,
            "seed": i,
            "max_tokens": 24,
            "messages": [{"role": "user", "content": f"canary {i}"}],
        }
        for i in range(12)
    ]
    with serving(hosted(tiny_folder), max_running=5) as live:
        alone = [live.http.post(CHAT, json=body).json()["choices"] for body in bodies]
        together: list[Any] = [None] * len(bodies)

        def ask(i: int) -> None:
            together[i] = live.http.post(CHAT, json=bodies[i]).json()["choices"]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(bodies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == alone


def test_a_model_that_cannot_be_loaded_fails_alone(
    tiny_folder: Path, scripted_model: HostedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Any:
        raise OSError("the file at a secret place is damaged")

    scripted_model.loaded = None
    bad = HostedModel(id="bad", context_tokens=64, need_bytes=1, load=fail)
    with running([bad, scripted_model]) as live:
        answer = live.http.post(CHAT, json={**SILENT, "model": "bad"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_load_failed")
        assert "secret" not in answer.text
        body = {**SILENT, "messages": [{"role": "user", "content": "x"}]}
        assert live.http.post(CHAT, json=body).status_code == 200
    assert "a secret place" in capfd.readouterr().err


def test_the_log_has_no_word_of_what_was_said(
    scripted_model: HostedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(scripted_model) as live:
        body = {**SILENT, "messages": [{"role": "user", "content": "a confidence"}]}
        answer = live.http.post(CHAT, json=body)
        live.http.post(CHAT, json={**body, "messages": [{"role": "a confidence", "content": ""}]})
        live.http.get("/v1/a-confidence")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert "confidence" not in json.dumps(lines)
    (line,) = [each for each in lines if each.get("request") == answer.headers["x-request-id"]]
    assert (line["event"], line["route"], line["status"]) == ("request", "/chat/completions", 200)
