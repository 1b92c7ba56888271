"""Traces as a collector gets them, from a server that runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.unit.server.conftest import hosted
from tests.unit.server.live import running
from tests.unit.server.test_life import ENDLESS

from puna.errors import ConfigError
from puna.server.settings import ServerSettings
from puna.server.watch.traces import tracing

CLIENT = "00-" + "a1" * 16 + "-" + "b2" * 8 + "-01"


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> dict[str, Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return {
            span.name: span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


def attributes(span: Span) -> dict[str, object]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes}


def test_a_request_and_its_answer_are_spans_of_the_clients_trace(tiny_folder: Path) -> None:
    with collecting() as collector:
        with running([hosted(tiny_folder)], traces_url=collector.url) as live:
            body = {"model": "tiny", "prompt": "canary", "max_tokens": 3, "seed": 1}
            reply = live.http.post("/v1/completions", json=body, headers={"traceparent": CLIENT})
            assert reply.status_code == 200
        spans = collector.spans()
    request, answer = spans["POST /completions"], spans["generate tiny"]
    assert request.trace_id.hex() == answer.trace_id.hex() == "a1" * 16
    assert request.parent_span_id.hex() == "b2" * 8
    assert answer.parent_span_id == request.span_id
    assert request.kind == Span.SPAN_KIND_SERVER
    told = attributes(request)
    assert told["http.response.status_code"] == 200
    assert told["puna.request.id"] == reply.headers["x-request-id"]
    told, usage = attributes(answer), reply.json()["usage"]
    assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert [event.name for event in answer.events] == ["admitted", "first_token"]
    assert answer.start_time_unix_nano <= answer.events[0].time_unix_nano <= answer.end_time_unix_nano
    assert b"canary" not in b"".join(collector.bodies)


def test_a_span_says_that_its_request_failed_and_quotes_nobody(tiny_folder: Path) -> None:
    with collecting() as collector:
        with running([hosted(tiny_folder)], traces_url=collector.url) as live:
            body = {"model": "tiny", "prompt": "canary " * 600, "max_tokens": 3}
            assert live.http.post("/v1/completions", json=body).status_code == 400
            assert live.http.get("/v1/canary").status_code == 404
        spans = collector.spans()
    assert attributes(spans["POST /completions"])["http.response.status_code"] == 400
    assert attributes(spans["GET (none)"])["http.response.status_code"] == 404
    assert b"canary" not in b"".join(collector.bodies)


@pytest.mark.parametrize(("end", "kind"), [("the engine", "EngineError"), ("the client", "CancelledError")])
def test_a_span_says_who_broke_an_answer_off(tiny_folder: Path, end: str, kind: str) -> None:
    with collecting() as collector:
        with (
            running([hosted(tiny_folder)], traces_url=collector.url) as live,
            live.http.stream("POST", "/v1/chat/completions", json=ENDLESS) as stream,
        ):
            lines = stream.iter_lines()
            next(lines)
            if end == "the engine":
                engine: Any = live.services.pool.models["tiny"].loaded.llama.engine  # type: ignore[union-attr]
                engine._scheduler.advance = None
                assert list(lines)[-2] == "data: [DONE]"
        answer = collector.spans()["generate tiny"]
    assert attributes(answer)["error.type"] == kind
    assert answer.status.code == Status.STATUS_CODE_ERROR


def test_a_collector_that_is_away_costs_no_answer(
    tiny_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with collecting() as collector:
        url = collector.url
    with running([hosted(tiny_folder)], traces_url=url) as live:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 1}
        assert live.http.post("/v1/completions", json=body).status_code == 200
    assert '"event": "traces"' in capfd.readouterr().err


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="http://HOST:PORT"):
        ServerSettings(traces_url="localhost:4318")


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install 'puna\[traces\]'"), tracing("http://h", "srv_test"):
        pass
