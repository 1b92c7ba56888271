"""The end of the server: answers finish or are cut, and nobody waits for what does not come."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.tiny import save_tiny
from tests.unit.server.live import Live, running
from tests.unit.server.test_life import ENDLESS, wait_for

from puna import Llama
from puna.server import state
from puna.server.hosting.hosted import HostedModel
from puna.server.settings import ServerSettings
from puna.server.state.store import State

STUCK = """
import time
from puna.server.hosting import hosted
hosted.Llama = lambda *args, **settings: print("loading", flush=True) or time.sleep(3600)
from puna.cli import main
main()
"""


TALKATIVE = """
import logging, warnings
from puna.server.hosting import hosted
def talk(*args, **settings):
    logging.getLogger("a.library").error("a confidence")
    warnings.warn("a confidence", stacklevel=1)
    return load(*args, **settings)
load, hosted.Llama = hosted.Llama, talk
from puna.cli import main
main()
"""


@contextmanager
def started(
    folder: Path, *options: str, program: Sequence[str] = ("-m", "puna")
) -> Iterator[subprocess.Popen[str]]:
    """`puna serve` as a process of its own."""
    command = [sys.executable, *program, "serve", str(folder), "--port", "0", "--threads", "1", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as server:
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def process(
    folder: Path, *options: str, program: Sequence[str] = ("-m", "puna")
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`puna serve` once clients may come, and its base URL."""
    with started(folder, *options, program=program) as server:
        assert server.stdout is not None
        found = re.fullmatch(r"serving [a-z, ]+ at (http://127\.0\.0\.1:\d+/v1)\n", server.stdout.readline())
        assert found
        assert server.stdout.readline().startswith(f"curl {found[1]}/chat/completions ")
        yield server, found[1]


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers can take a while."""
    folder = tmp_path_factory.mktemp("served") / "long"
    folder.mkdir()
    save_tiny(folder, max_position_embeddings=65536)
    return folder


def test_a_signal_lets_answers_finish_and_ends_well(long_folder: Path) -> None:
    body = {**ENDLESS, "model": "long", "max_tokens": 400, "stream_options": {"include_usage": True}}
    with process(long_folder) as (server, url), httpx2.Client() as http:
        with http.stream("POST", f"{url}/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert json.loads(rest[-2].removeprefix("data: "))["usage"]["completion_tokens"] == 400
        assert rest[-1] == "data: [DONE]"
        assert server.wait(20) == 0


def test_the_end_of_the_terminal_is_a_signal_to_end(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUNA_HOME", str(tmp_path))
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under `nohup`
    try:
        with process(tiny_folder) as (server, _):
            server.send_signal(signal.SIGHUP)
            assert server.wait(20) == 0
            check_log(server)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not list((tmp_path / "servers").iterdir())


def test_nohup_lets_the_server_outlive_the_terminal(tiny_folder: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` hands it on
    try:
        with process(tiny_folder) as (server, url):
            server.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            httpx2.get(f"{url}/health").raise_for_status()
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_without_stdin_stdout_and_stderr_serves_and_ends_well(tiny_folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    command = (sys.executable, "-m", "puna", "serve", str(tiny_folder), "--port", port, "--threads", "1")
    with subprocess.Popen([*closed, *command]) as server:
        try:
            url = f"http://127.0.0.1:{port}/v1"
            while server.poll() is None and is_refused(url):
                time.sleep(0.05)
            httpx2.get(f"{url}/health").raise_for_status()
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0
        finally:
            server.kill()


def test_a_second_ctrl_c_ends_at_once(long_folder: Path) -> None:
    body = {**ENDLESS, "model": "long"}
    with (
        process(long_folder, "--context", "60000", "--drain", "300") as (server, url),
        httpx2.Client() as http,
        http.stream("POST", f"{url}/chat/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        server.send_signal(signal.SIGINT)
        wait_for(lambda: is_refused(url))
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
        check_log(server)


def test_a_second_ctrl_c_ends_at_once_what_runs_in_the_background_too(
    long_folder: Path, tiny_folder: Path
) -> None:
    body = {"model": "long", "input": "hum", "background": True}
    with process(long_folder, str(tiny_folder), "--drain", "300", program=("-c", STUCK)) as (server, url):
        httpx2.post(f"{url}/responses", json=body).raise_for_status()
        server.send_signal(signal.SIGINT)
        wait_for(lambda: is_refused(url))
        time.sleep(0.5)  # until nothing else is waited for
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
        check_log(server)


def check_log(server: subprocess.Popen[str]) -> None:
    """What was cancelled is no failure, and has no traceback."""
    assert server.stderr is not None
    assert "error" not in {json.loads(line)["event"] for line in server.stderr}


def test_all_of_the_log_is_json(tiny_folder: Path) -> None:
    with (
        process(tiny_folder, "--drain", "0", program=("-c", TALKATIVE)) as (server, url),
        socket.socket() as slow,
        socket.socket() as odd,
    ):
        address = ("127.0.0.1", httpx2.URL(url).port)
        slow.connect(address)
        slow.sendall(b"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        odd.connect(address)
        odd.sendall(b"\x16\x03\x01\x02\x00")
        assert odd.recv(12) == b"HTTP/1.1 400"
        server.send_signal(signal.SIGTERM)  # the slow one's body is waited for, but not so long
        assert server.wait(20) == 0
        assert server.stderr is not None
        lines = [json.loads(line) for line in server.stderr]
    assert [line["event"] for line in lines if line["event"] not in ("loaded", "request", "draining")] == [
        "library",
        "warning",
        "bad_request",
        "uvicorn",
    ]
    assert [line["status"] for line in lines if line["event"] == "request"] == [503]
    assert lines[-2]["problem"].startswith("Cancel 1 ")
    assert "confidence" not in json.dumps(lines)


def is_refused(url: str) -> bool:
    """Whether nobody listens at an address any more."""
    try:
        httpx2.get(f"{url}/health")
    except httpx2.ConnectError:
        return True
    except httpx2.TransportError:
        return False  # it was just being closed
    return False


def test_answers_that_take_longer_than_the_drain_are_cut_and_sent(long_folder: Path) -> None:
    body = {**ENDLESS, "model": "long", "stream": False}
    with (
        process(long_folder, "--context", "60000", "--drain", "0.3") as (server, url),
        httpx2.Client() as http,
    ):
        threading.Timer(0.3, server.send_signal, (signal.SIGTERM,)).start()
        answer = http.post(f"{url}/chat/completions", json=body, timeout=30).json()
        assert answer["choices"][0]["finish_reason"] == "length"
        assert 0 < answer["usage"]["completion_tokens"] < 59_000
        assert server.wait(20) == 0


def hosted(name: str, load: Any) -> HostedModel:
    return HostedModel(id=name, context_tokens=4096, need_bytes=600, load=load)


def waiting_for(model: HostedModel, live: Live, threads: ThreadPoolExecutor) -> list[Future[httpx2.Response]]:
    """A chat, an Anthropic message and a response in the background, all of which wait for a model."""
    said = [{"role": "user", "content": "hum"}]
    bodies: dict[str, dict[str, Any]] = {
        "chat/completions": {"messages": said},
        "messages": {"messages": said, "max_tokens": 4},
        "responses": {"input": "hum", "background": True, "stream": True},
    }
    asked = [
        threads.submit(httpx2.post, f"{live.url}/{route}", json={"model": model.id, **body}, timeout=30)
        for route, body in bodies.items()
    ]
    wait_for(lambda: model.n_users == 3)
    return asked


def check_sent_away(asked: Sequence[Future[httpx2.Response]]) -> None:
    chat, message, response = (each.result() for each in asked)
    assert (chat.status_code, chat.json()["error"]["code"]) == (503, "shutting_down")
    assert (message.status_code, message.json()["error"]["type"]) == (503, "overloaded_error")
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert events[-1]["type"] == "response.failed"
    assert "shutting down" in events[-1]["response"]["error"]["message"]


def test_the_end_does_not_wait_for_a_load(scripted: Llama) -> None:
    gate = threading.Event()
    model = hosted("scripted", lambda: gate.wait(20) and scripted)
    with ThreadPoolExecutor() as threads:
        with running([model], drain_s=0.3) as live:
            asked = waiting_for(model, live, threads)
        assert live.services.pool.is_loading
        gate.set()
        check_sent_away(asked)


def test_the_end_does_not_wait_for_room(scripted: Llama) -> None:
    first, second = hosted("first", lambda: scripted), hosted("second", lambda: scripted)
    with ThreadPoolExecutor() as threads:
        with running([first, second], memory_bytes=1000, drain_s=0.3, timeout_s=20) as live:
            live.http.post("/v1/tokenize", json={"model": "first", "prompt": ""}).raise_for_status()
            first.n_users += 1  # somebody has it to the end
            asked = waiting_for(second, live, threads)
        check_sent_away(asked)


def test_the_process_ends_well_though_a_load_does_not(
    long_folder: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUNA_HOME", str(tmp_path))
    with process(long_folder, str(tiny_folder), "--drain", "0.3", program=("-c", STUCK)) as (server, url):
        body = {"model": "long", "input": "hum", "background": True}
        begun = httpx2.post(f"{url}/responses", json=body).json()
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    assert not list((tmp_path / "servers").iterdir())
    assert asyncio.run(kept(tmp_path, begun["id"])).body["status"] == "failed"


def test_the_process_ends_though_a_load_does_not_and_nobody_reads_its_log(
    long_folder: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # what cannot be written waits for the next flush
    with process(long_folder, str(tiny_folder), "--drain", "0.3", program=("-c", STUCK)) as (server, url):
        body = {"model": "long", "input": "hum", "background": True}
        httpx2.post(f"{url}/responses", json=body).raise_for_status()
        assert server.stderr is not None
        server.stderr.close()
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def test_ctrl_c_does_not_wait_for_the_first_load(tiny_folder: Path) -> None:
    with started(tiny_folder, program=("-c", STUCK)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "loading\n"
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 130
        check_log(server)


async def kept(home: Path, key: str) -> state.responses.StoredResponse:
    """A response as a server has left it."""
    store = State(ServerSettings(), home / "state" / "puna.db")
    try:
        return await store.read(state.responses.find, "", key)
    finally:
        await store.close()
