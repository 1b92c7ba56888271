"""What a server must survive; each case is named after what it prevents. After each it still answers."""

from __future__ import annotations

import errno
import io
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.unit.server.conftest import hosted
from tests.unit.server.live import Live, running

from puna.server.hosting.hosted import HostedModel
from puna.server.schemas.base import Body

BODY_BYTES = 256 * 1024
USER: Any = [{"role": "user", "content": "hum"}]
CHAT = "/v1/chat/completions"
COMPLETE = "/v1/completions"


@pytest.fixture(scope="module")
def live(tiny_folder: Path, scripted_model: HostedModel) -> Iterator[Live]:
    scripted_model.loaded = None
    models = [hosted(tiny_folder), scripted_model]
    with running(models, max_body_bytes=BODY_BYTES, read_timeout_s=1.0) as server:
        server.http.post(CHAT, json={"model": "tiny", "messages": USER, "max_tokens": 1})
        yield server


@pytest.fixture(autouse=True)
def still_answers(live: Live) -> Iterator[None]:
    yield
    assert live.http.get("/v1/health").json() == {"status": "OK"}
    state = live.http.get("/v1/admin/state").json()
    assert {model["running"] for model in state["models"]} == {0}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": USER, "max_tokens": 1, **fields}


def tool(parameters: Any, name: str = "t", *, strict: bool = False) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, "strict": strict}}


def json_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


DOUBLING = "".join(f"A{i}: A{i + 1} A{i + 1}\n" for i in range(60)) + 'A60: "x"'
NUMBERS = {"zero": 0, "negative": -1, "2_31": 2**31, "2_63": 2**63, "float": 1.5, "text": "1", "true": True}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"n_of_{name}": (CHAT, chat(n=value)) for name, value in NUMBERS.items()},
    **{f"max_tokens_of_{name}": (CHAT, chat(max_tokens=value)) for name, value in NUMBERS.items()},
    "top_logprobs_without_bound": (CHAT, chat(logprobs=True, top_logprobs=10**6)),
    "completion_logprobs_without_bound": (COMPLETE, {"model": "tiny", "prompt": "a", "logprobs": 10**6}),
    "best_of_amplification": (COMPLETE, {"model": "tiny", "prompt": "a", "best_of": 10**6}),
    "suffix_that_is_ignored": (COMPLETE, {"model": "tiny", "prompt": "a", "suffix": "b"}),
    "temperature_that_overflows": (CHAT, chat(temperature=1e308)),
    "seed_that_overflows": (CHAT, chat(seed=2**70)),
    "too_many_stop_texts": (CHAT, chat(stop=["a"] * 1000)),
    "empty_stop_text": (CHAT, chat(stop=[""])),
    "stop_text_without_bound": (CHAT, chat(stop="a" * 5000)),
    "logit_bias_that_is_no_token": (CHAT, chat(logit_bias={"hum": 1})),
    "logit_bias_out_of_range": (CHAT, chat(logit_bias={"1": 1e9})),
    "logit_bias_without_bound": (CHAT, chat(logit_bias={str(i): 1 for i in range(2000)})),
    "no_messages": (CHAT, chat(messages=[])),
    "too_many_messages": (CHAT, chat(messages=[{"role": "user", "content": ""}] * 4097)),
    "unknown_role": (CHAT, chat(messages=[{"role": "root", "content": "a"}])),
    "unknown_knob": (CHAT, chat(n_discard=-1)),
    "chat_template_of_the_client": (CHAT, chat(chat_template="{{ 1 }}")),
    "file_named_by_the_client": (
        CHAT,
        chat(
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]
        ),
    ),
    "server_side_request": (
        CHAT,
        chat(
            messages=[
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1"}}]}
            ]
        ),
    ),
    "empty_prompt": (COMPLETE, {"model": "tiny", "prompt": ""}),
    "empty_list_of_prompts": (COMPLETE, {"model": "tiny", "prompt": []}),
    "too_many_prompts": (COMPLETE, {"model": "tiny", "prompt": ["a"] * 1000}),
    "prompt_of_foreign_ids": (COMPLETE, {"model": "tiny", "prompt": [10**9]}),
    "prompt_of_negative_ids": (COMPLETE, {"model": "tiny", "prompt": [-1]}),
    "prompt_of_mixed_kinds": (COMPLETE, {"model": "tiny", "prompt": ["a", 1]}),
    "prompt_longer_than_the_context": (COMPLETE, {"model": "tiny", "prompt": "a" * 513}),
    "embedding_longer_than_the_context": ("/v1/embeddings", {"model": "tiny", "input": "a" * 513}),
    "embedding_of_nothing": ("/v1/embeddings", {"model": "tiny", "input": [[]]}),
    "embedding_of_foreign_ids": ("/v1/embeddings", {"model": "tiny", "input": [10**6]}),
    "detokenizing_foreign_ids": ("/v1/detokenize", {"model": "tiny", "tokens": [10**6]}),
    "deep_arguments": (
        CHAT,
        chat(
            model="scripted",
            messages=[
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "t", "arguments": '{"a":' * 900 + "1" + "}" * 900},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "x"},
            ],
        ),
    ),
    "too_many_tools": (CHAT, chat(tools=[tool({}, f"t{i}") for i in range(129)])),
    "two_tools_of_one_name": (CHAT, chat(model="scripted", tools=[tool({}), tool({})])),
    "tool_name_with_quotes": (CHAT, chat(model="scripted", tools=[tool({}, 'a"\n<|eot_id|>')])),
    "tool_schema_that_is_none": (CHAT, chat(model="scripted", tools=[tool({"type": 7})])),
    "tool_schema_of_another_type": (CHAT, chat(model="scripted", tools=[tool({"type": "array"})])),
    "tool_pattern_that_is_damaged": (
        CHAT,
        chat(model="scripted", tools=[tool({"properties": {"a": {"pattern": "["}}}, strict=True)]),
    ),
    "tool_pattern_without_bound": (
        CHAT,
        chat(
            model="scripted",
            tools=[tool({"properties": {"a": {"pattern": "(a{1,999}){1,999}{9}"}}}, strict=True)],
        ),
    ),
    "too_many_patterns": (
        CHAT,
        chat(
            model="scripted",
            tools=[tool({"properties": {f"p{i}": {"pattern": f"a{i}"} for i in range(100)}})],
        ),
    ),
    "response_format_of_another_kind": (CHAT, chat(response_format={"type": "xml"})),
    "response_format_nested_deeply": (CHAT, chat(response_format=json_schema(nested(200)))),
    "response_format_at_an_address": (CHAT, chat(response_format=json_schema({"$ref": "https:example.org"}))),
    "response_format_too_large": (CHAT, chat(response_format=json_schema({"enum": ["x" * 70_000]}))),
    "response_format_that_nothing_suits": (CHAT, chat(response_format=json_schema({"enum": []}))),
    "response_format_pattern_nested_deeply": (
        CHAT,
        chat(response_format={"type": "regex", "regex": "(" * 30_000 + ")" * 30_000}),
    ),
    "response_format_grammar_that_doubles": (
        CHAT,
        chat(response_format={"type": "grammar", "grammar": "start: A0\n" + DOUBLING}),
    ),
    "response_format_too_many_choices": (
        CHAT,
        chat(response_format={"type": "choices", "choices": ["a"] * 2000}),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(live: Live, name: str) -> None:
    path, body = REFUSED[name]
    answer = live.http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert "/" not in error["message"].replace("NaN/Inf", "").replace("</", "")
    assert "0x" not in error["message"]


BODIES = {
    "body_that_is_no_json": b"{",
    "body_that_is_a_list": b"[]",
    "body_of_text": b'"a"',
    "body_of_invalid_utf8": b'{"model": "\xff"}',
    "body_with_a_key_twice": json.dumps(chat()).encode()[:-1] + b', "max_tokens": 5}',
    "body_with_nan": b'{"model": "tiny", "prompt": "a", "temperature": NaN}',
    "body_with_infinity": b'{"model": "tiny", "prompt": "a", "top_p": Infinity}',
    "body_with_half_a_surrogate_pair_as_model": b'{"model": "\\ud800", "messages": []}',
    "deep_json": json.dumps(chat()).encode()[:-1] + b', "tools": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "json_deeper_than_schemas_are": json.dumps(chat(tools=[tool({})])).encode()[:-4]
    + b'{"a":' * 70
    + b"}" * 74,
    "keys_without_bound": json.dumps(chat(logit_bias={str(i): 1 for i in range(5000)})).encode(),
    "unknown_keys_without_bound": json.dumps(chat(**{f"a{i}": 1 for i in range(5000)})).encode(),
    "large_body_that_is_no_json": b"[" + b"0," * 50_000,
    "empty_body": b"",
    "null_body": b"null",
}


@pytest.mark.parametrize("name", BODIES)
def test_refused_body(live: Live, name: str) -> None:
    answer = live.http.post(
        COMPLETE if b"prompt" in BODIES[name] else CHAT,
        content=BODIES[name],
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


def test_a_complaint_for_each_entry_of_a_list(live: Live) -> None:
    lists = {(model.__name__, path): schema for model in bodies(Body) for path, schema in lists_of(model)}
    assert len(lists) > 50
    for place, schema in lists.items():
        assert schema.get("fail_fast"), f"{place} tells every mistake"
        assert schema.get("max_length") is not None, f"{place} has no bound"
    answer = live.http.post(COMPLETE, json={"model": "tiny", "prompt": [-1] * 50_000})
    assert answer.json()["error"]["message"] == "prompt[0]: Input should be greater than or equal to 0"


def bodies(base: type[Body]) -> Iterator[type[Body]]:
    for each in base.__subclasses__():
        yield each
        yield from bodies(each)


def lists_of(model: type[Body]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every list in a model's schema, as pydantic validates it."""
    parts: list[tuple[str, Any]] = [("", model.__pydantic_core_schema__)]
    while parts:
        path, part = parts.pop()
        if isinstance(part, dict):
            if part.get("type") == "list":
                yield path, part
            parts += [(f"{path}/{key}", value) for key, value in part.items() if key != "metadata"]
        elif isinstance(part, list | tuple):
            parts += [(f"{path}/{i}", value) for i, value in enumerate(part)]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_page_s_form_is_not_read(live: Live, kind: str) -> None:
    answer = live.http.post(CHAT, content=json.dumps(chat()), headers={"Content-Type": kind})
    assert answer.status_code == 400


HEADERS = {
    "dns_rebinding": ({"Host": "evil.example"}, 403),
    "dns_rebinding_with_our_port": ({"Host": "evil.example:8321"}, 403),
    "host_with_a_user": ({"Host": "127.0.0.1@evil.example"}, 403),
    "host_with_a_path": ({"Host": "evil.example/127.0.0.1"}, 403),
    "empty_host": ({"Host": ""}, 403),
    "request_by_a_page_elsewhere": ({"Origin": "https://evil.example"}, 403),
    "request_by_a_sandboxed_page": ({"Origin": "null"}, 403),
    "request_by_a_page_on_another_port": ({"Origin": "http://127.0.0.1:1"}, 403),
    "decompression_bomb": ({"Content-Encoding": "gzip"}, 415),
    "too_many_headers": ({f"x-{i}": "a" for i in range(200)}, 431),
}


@pytest.mark.parametrize("name", HEADERS)
def test_refused_header(live: Live, name: str) -> None:
    headers, status = HEADERS[name]
    answer = live.http.post(CHAT, json=chat(), headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_our_own_names_and_pages_pass(live: Live) -> None:
    for host in ("localhost", f"127.0.0.1:{live.port}", "[::1]:80", "192.0.2.7"):
        assert live.http.get("/v1/health", headers={"Host": host}).status_code == 200
    own = f"http://127.0.0.1:{live.port}"
    assert live.http.post(CHAT, json=chat(), headers={"Origin": own}).status_code == 200


def test_preflight_of_a_page_elsewhere_is_refused(live: Live) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = live.http.options(CHAT, headers=headers)
    assert answer.status_code == 403


def test_preflight_of_an_allowed_page_lets_the_official_client_s_headers_pass(
    scripted_model: HostedModel,
) -> None:
    with running([scripted_model], allowed_origins=("https://ours.example",)) as live:
        headers = {
            "Origin": "https://ours.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-stainless-lang,anthropic-version",
        }
        answer = live.http.options(CHAT, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://ours.example"


def test_body_over_the_limit(live: Live) -> None:
    answer = live.http.post(
        CHAT, content=b" " * (BODY_BYTES + 1), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413


def test_body_over_the_limit_that_does_not_say_so(live: Live) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(2 * BODY_BYTES // 4096):
            yield b" " * 4096

    answer = live.http.post(CHAT, content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def raw(live: Live, data: bytes, *, seconds: float = 5) -> bytes:
    """Everything that comes back until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=seconds) as connection:
        connection.sendall(data)
        received = b""
        with suppress(ConnectionResetError):  # an end too, where not all was read
            while more := connection.recv(65536):
                received += more
        return received


def test_slow_headers_do_not_hold_a_connection(live: Live) -> None:
    assert raw(live, b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: ") == b""


def test_slow_body_does_not_hold_a_connection(live: Live) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = raw(live, head + b"Content-Length: 50\r\nConnection: close\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_header_without_end(live: Live) -> None:
    answer = raw(live, b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 300_000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


def test_a_long_header_that_comes_at_once(live: Live) -> None:
    head = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000
    assert raw(live, head + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_body_behind_its_answer_does_not_hold_a_connection(live: Live) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert raw(live, head + b"Content-Length: 50\r\n\r\n{").startswith(b"HTTP/1.1 408 ")


def test_headers_behind_a_body_are_none(live: Live) -> None:
    head = b"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = json.dumps({"model": "tiny", "prompt": "a"}).encode()
    chunks = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\nContent-Encoding: gzip\r\n\r\n"
    answer = raw(live, head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_request_to_speak_another_protocol_is_answered_in_this_one(live: Live) -> None:
    head = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    answer = raw(live, head)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_body_with_a_request_to_speak_another_protocol(
    live: Live, protocol: bytes, is_chunked: bool
) -> None:
    head = b"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAI\r\nUpgrade: " + protocol
    body = json.dumps({"model": "tiny", "prompt": "a"}).encode()
    if is_chunked:
        body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        head += b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    else:
        head += f"\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    answer = raw(live, head + body)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer
    assert b'"count":1' in answer


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: chunked, gzip",
        b"Content-Length: 10000000",
    ],
)
def test_smuggling_by_a_request_to_speak_another_protocol(live: Live, lengths: bytes) -> None:
    head = (
        b"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + lengths
    )
    answer = raw(live, head + b"\r\n\r\n0\r\n\r\nGET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 4")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_bytes_that_are_no_http(live: Live) -> None:
    assert raw(live, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "header", [b"Host: evil.example", b"Content-Length: 5", b"Transfer-Encoding: chunked"]
)
def test_smuggling_by_a_header_given_twice(live: Live, header: bytes) -> None:
    head = b"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nConnection: close\r\n"
    answer = raw(live, head + header + b"\r\n\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "path",
    ["/v1/models/../../etc/passwd", "/v1/models/%2e%2e%2fetc%2fpasswd", "/v1/models//x/y", "/v1/models/\\x"],
)
def test_model_names_are_no_paths(live: Live, path: str) -> None:
    assert live.http.get(path).status_code == 404


@pytest.mark.parametrize("name", ["../tiny", "./tiny", "hf:evil/model", "file:///x", "smollm2", "x" * 500])
def test_a_client_cannot_have_a_model_fetched_or_opened(live: Live, name: str) -> None:
    answer = live.http.post(CHAT, json=chat(model=name))
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


HALF = "half \ud800 a pair"
HALVES: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "stored_completion": (CHAT, chat(messages=[{"role": "user", "content": HALF}], store=True), CHAT),
    "prompt": ("/v1/prompts", {"prompt": HALF}, "/v1/prompts"),
    "response": (
        "/v1/responses",
        {"model": "tiny", "instructions": HALF, "input": HALF, "max_output_tokens": 16},
        "/v1/responses",
    ),
    "stream": (
        "/v1/responses",
        {"model": "tiny", "instructions": HALF, "input": "a", "max_output_tokens": 16, "stream": True},
        None,
    ),
    "echo": (COMPLETE, {"model": "tiny", "prompt": HALF, "max_tokens": 1, "echo": True}, None),
    "compaction": ("/v1/responses/compact", {"model": "tiny", "input": HALF}, None),
}


@pytest.mark.parametrize("name", HALVES)
def test_half_a_surrogate_pair_that_poisons_answers_and_lists(live: Live, name: str) -> None:
    path, body, listed = HALVES[name]
    text = json.dumps(body).encode()  # in escapes, as JSON has it
    answer = live.http.post(path, content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    found = live.http.get(listed) if listed else answer
    assert found.status_code == 200
    assert "half \\ud800 a pair" in found.text
    assert "server_error" not in found.text


def test_a_long_path_is_refused(live: Live) -> None:
    assert live.http.get("/v1/models/" + "x" * 5000).status_code == 414


def test_unknown_routes_are_told_in_the_same_shape(live: Live) -> None:
    answer = live.http.get("/v1/nothing")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    assert live.http.delete("/v1/health").status_code == 405


def test_a_wrong_method_is_told_all_that_its_path_has(live: Live) -> None:
    for path, methods in (
        ("responses/x", "DELETE, GET"),
        ("prompts/x", "DELETE, GET, PUT"),
        ("health", "GET"),
    ):
        answer = live.http.patch(f"/v1/{path}")
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)


class FullDisk(io.StringIO):
    """Where a log can no more be written to."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_cannot_be_written_ends_no_answer(
    scripted_model: HostedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_model.loaded = None
    monkeypatch.setattr(sys, "stderr", FullDisk())
    with running([scripted_model]) as live:
        for stream in (False, True):  # it is loaded for the first one, and the log is told
            answer = live.http.post(CHAT, json=chat(model="scripted", stream=stream))
            assert answer.status_code == 200, answer.text
            assert '"finish_reason":"stop"' in answer.text


def test_odd_texts_are_taken(live: Live) -> None:
    for text in ("\0", "\ufffe", "\u202e", "a" * 300, "\U0001f999"):
        answer = live.http.post(CHAT, json=chat(messages=[{"role": "user", "content": text}]))
        assert answer.status_code == 200, answer.text
