"""Faults of the machine and our own: what is hit is told so, and the server goes on."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.tiny import save_tiny
from tests.unit.server.conftest import hosted
from tests.unit.server.live import running
from tests.unit.server.test_end import process
from tests.unit.server.test_life import ENDLESS, wait_for

from puna.server.hosting.pool import ModelPool
from puna.server.state.store import State

BODY: Any = {**ENDLESS, "model": "tiny", "max_tokens": 8, "temperature": 0, "stream": False}
SPARE_BYTES = 20_000_000  # for all but a large model


def said(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return json.dumps(answer.json()["choices"])


def test_an_engine_that_loses_track_loses_what_runs_and_goes_on(
    tiny_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running([hosted(tiny_folder)]) as live:
        right = said(live.http.post("/v1/chat/completions", json=BODY))
        loaded = live.services.pool.models["tiny"].loaded
        assert loaded is not None
        with live.http.stream("POST", "/v1/chat/completions", json=ENDLESS) as stream:
            lines = (line.removeprefix("data: ") for line in stream.iter_lines() if line)
            next(lines)
            loaded.llama.engine._scheduler.advance = None  # type: ignore[attr-defined]
            *_, last, end = lines
        assert json.loads(last)["error"]["type"] == "server_error"
        assert end == "[DONE]"
        assert live.http.get("/v1/health").status_code == 200
        assert said(live.http.post("/v1/chat/completions", json=BODY)) == right
        assert loaded.load()["running"] == loaded.load()["cache_tokens_reserved"] == 0
    (line,) = (line for line in capfd.readouterr().err.splitlines() if '"event": "error"' in line)
    error = json.loads(line)
    assert (error["kind"], error["cause"]["kind"]) == ("EngineError", "TypeError")
    assert error["cause"]["where"][-1].startswith("native.py:")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_ends_is_replaced(tiny_folder: Path) -> None:
    def no_memory() -> None:
        raise MemoryError

    with running([hosted(tiny_folder)]) as live:
        right = said(live.http.post("/v1/chat/completions", json=BODY))
        ended = live.services.pool.models["tiny"].loaded
        assert ended is not None
        engine: Any = ended.llama.engine
        wait_for(lambda: engine._scheduler.is_idle)
        engine._scheduler.advance = None
        engine._queues = no_memory
        answer = live.http.post("/v1/chat/completions", json=BODY)
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
        engine._thread.join(10)
        for _ in range(2):
            assert said(live.http.post("/v1/chat/completions", json=BODY)) == right
        assert live.services.pool.models["tiny"].loaded is not ended


@pytest.mark.parametrize(
    ("owner", "broken", "method", "path"),
    [
        (State, "read", "GET", "/v1/chat/completions/chatcmpl-1"),  # behind FastAPI
        (ModelPool, "use", "POST", "/v1/chat/completions"),  # past it
        (ModelPool, "check_room", "POST", "/v1/chat/completions"),  # in the door
    ],
)
def test_our_own_faults_are_told_in_openai_s_shape_and_logged_once(
    owner: type,
    broken: str,
    method: str,
    path: str,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("not for clients")

    with running([hosted(tiny_folder)]) as live:
        with monkeypatch.context() as patch:
            patch.setattr(owner, broken, fails)
            answer = live.http.request(method, path, json=BODY if method == "POST" else None)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (500, "server_error")
        assert "x-request-id" in answer.headers
        assert "the server failed" in error["message"]
        assert "not for clients" not in answer.text
        said(live.http.post("/v1/chat/completions", json=BODY))
    (line,) = (line for line in capfd.readouterr().err.splitlines() if '"event": "error"' in line)
    logged = json.loads(line)
    assert (logged["kind"], logged["where"][-1].startswith("test_faults.py:")) == ("ValueError", True)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system lets a process be given less memory")
def test_a_model_for_which_there_is_no_memory_is_refused_and_all_else_goes_on(
    tiny_folder: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.mkdir()
    save_tiny(large, hidden_size=256, intermediate_size=32768, num_hidden_layers=1)  # 100 MB
    ask_large = {**BODY, "model": "large"}
    with process(tiny_folder, str(large)) as (server, url), httpx2.Client(base_url=url, timeout=30) as http:
        right = said(http.post("/chat/completions", json=BODY))
        status = Path(f"/proc/{server.pid}/status").read_text()
        taken_bytes = 1024 * int(status.partition("VmSize:")[2].split()[0])
        resource.prlimit(server.pid, resource.RLIMIT_AS, (taken_bytes + SPARE_BYTES, -1))
        for _ in range(2):
            refused = http.post("/chat/completions", json=ask_large)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_load_failed")
            assert said(http.post("/chat/completions", json=BODY)) == right
        resource.prlimit(server.pid, resource.RLIMIT_AS, (-1, -1))
        said(http.post("/chat/completions", json=ask_large))
