"""Responses in the background: how they end, and streams of them that are taken up again."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from tests.unit.server.live import Live, running
from tests.unit.server.scripted import ScriptedEngine
from tests.unit.server.test_life import wait_for
from tests.unit.server.test_responses import EVENTS, WEATHER, ask, streamed

from puna import Llama
from puna.errors import StateError
from puna.server import background, event_log, responding, state
from puna.server.background import Background
from puna.server.errors import ApiError
from puna.server.hosting.hosted import HostedModel
from puna.server.state import responses


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client:
        yield client


def test_a_response_in_the_background_is_fetched_later(client: openai.OpenAI) -> None:
    begun = ask(client, "one call", background=True, tools=[WEATHER])
    assert (begun.status, begun.output) == ("queued", [])
    wait_for(lambda: client.responses.retrieve(begun.id).status == "completed")
    found = client.responses.retrieve(begun.id)
    assert found.output[0].type == "function_call"
    assert (found.background, found.created_at) == (True, begun.created_at)
    with pytest.raises(openai.BadRequestError, match="is completed"):
        client.responses.cancel(begun.id)


def test_a_response_in_the_background_is_cancelled(client: openai.OpenAI, live: Live) -> None:
    begun = ask(client, "fall silent", background=True)
    wait_for(lambda: client.responses.retrieve(begun.id).status == "in_progress")
    with pytest.raises(openai.BadRequestError, match="wait until it is over"):
        ask(client, "x", previous_response_id=begun.id)
    assert client.responses.cancel(begun.id).status == "cancelled"
    wait_for(lambda: not live.services.background._tasks)
    assert client.responses.retrieve(begun.id).status == "cancelled"
    assert client.responses.cancel(begun.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="not computed in the background"):
        client.responses.cancel(ask(client, "x").id)


def test_a_clock_that_jumps_does_not_end_what_still_runs(
    client: openai.OpenAI, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = ask(client, "fall silent", background=True)
    wait_for(lambda: client.responses.retrieve(begun.id).status == "in_progress")
    times = itertools.count(responses.now() + 1000, 1000)
    monkeypatch.setattr(responses, "now", lambda: next(times))
    assert client.responses.retrieve(begun.id).status == "in_progress"
    listed = live.http.get("/v1/responses", params={"limit": 1}).json()
    assert [(each["id"], each["status"]) for each in listed["data"]] == [(begun.id, "in_progress")]
    with pytest.raises(openai.BadRequestError, match="wait until it is over"):
        ask(client, "x", previous_response_id=begun.id)
    assert client.responses.cancel(begun.id).status == "cancelled"


def test_a_response_in_the_background_that_is_deleted_stops(client: openai.OpenAI, live: Live) -> None:
    begun = ask(client, "fall silent", background=True)
    client.responses.delete(begun.id)
    wait_for(lambda: not live.services.background._tasks)


def test_what_fails_in_the_background_says_so(client: openai.OpenAI) -> None:
    begun = ask(client, "x " * 5000, background=True)
    wait_for(lambda: client.responses.retrieve(begun.id).status == "failed")
    error = client.responses.retrieve(begun.id).error
    assert error is not None
    assert error.code == "invalid_prompt"


def test_a_response_whose_end_cannot_be_written_has_failed(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = responding._finish

    async def refuse(services: Any, response: Any, *rest: Any) -> bool:
        if response.status == "completed":
            raise ApiError(404, "its conversation is gone")
        return await write(services, response, *rest)

    monkeypatch.setattr(responding, "_finish", refuse)
    begun = ask(client, "one call", background=True, tools=[WEATHER])
    wait_for(lambda: client.responses.retrieve(begun.id).status == "failed")
    error = client.responses.retrieve(begun.id).error
    assert error is not None
    assert error.message == "its conversation is gone"


@pytest.mark.parametrize("error", [StateError("another process held it"), ApiError(507, "it is full")])
def test_a_response_is_kept_once_the_database_can_be_used_again(
    client: openai.OpenAI, live: Live, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    n_refused = refuse_to_finish(monkeypatch, error)
    monkeypatch.setattr(background, "_AGAIN_S", 0.01)
    events = iter(begin_in_stream(client, "one call", tools=[WEATHER]))
    key = next(events).response.id
    while next(events).type != "response.output_item.done":
        pass
    wait_for(lambda: len(n_refused) > 3)
    assert client.responses.retrieve(key).status == "queued"
    assert list(live.services.background._tasks) == [key]  # so other servers hear that it is computed
    monkeypatch.undo()
    (last,) = events
    assert last.type == "response.completed"
    assert client.responses.retrieve(key) == last.response


def test_a_response_that_cannot_be_kept_before_the_drain_ends_has_failed(
    scripted_model: HostedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_refused = refuse_to_finish(monkeypatch, StateError("another process held it"))
    body = {"model": "scripted", "input": "one call", "background": True, "stream": True}
    with ThreadPoolExecutor() as threads:
        with running([scripted_model], drain_s=1) as server:
            told = threads.submit(httpx2.post, f"{server.url}/responses", json=body, timeout=30)
            wait_for(lambda: len(n_refused) > 1)
        assert "event: response.failed\n" in told.result().text


def refuse_to_finish(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[None]:
    """Have no response in the background written any more; the list gets longer with every try."""
    refused: list[None] = []

    def refuse(*_: object) -> bool:
        refused.append(None)
        raise error

    monkeypatch.setattr(state.responses, "finish", refuse)
    return refused


async def test_places_in_the_background_are_held_from_the_beginning() -> None:
    background = Background(None, max_tasks=1)  # type: ignore[arg-type]
    full = pytest.raises(ApiError, match="1 responses are computed in the background already")
    with background.place("a"), full, background.place("b"):
        pass
    with background.place("a"):
        pass


async def test_nobody_has_all_places_in_the_background() -> None:
    background, over = Background(None, max_tasks=9), asyncio.Event()  # type: ignore[arg-type]

    def begin(client: str) -> None:
        with background.place(client):
            background.run(f"{client} {len(background._tasks)}", client, over.wait())  # type: ignore[arg-type]

    for _ in range(7):
        begin("greedy")
    with pytest.raises(ApiError, match="7 responses are computed in the background already") as caught:
        begin("greedy")
    assert (caught.value.status_code, caught.value.headers) == (429, {"Retry-After": "5"})
    begin("b")
    begin("c")
    with pytest.raises(ApiError, match="9 responses"):
        begin("d")
    over.set()
    await background.close()
    begin("greedy")
    await background.close()


def begin_in_stream(client: openai.OpenAI, given: str, **more: Any) -> Iterable[Any]:
    return client.responses.create(model="scripted", input=given, background=True, stream=True, **more)


def begin_stream(client: openai.OpenAI, given: str, **more: Any) -> list[Any]:
    return list(begin_in_stream(client, given, **more))


def test_a_response_in_the_background_is_streamed_too(client: openai.OpenAI, live: Live) -> None:
    events = begin_stream(client, "one call", tools=[WEATHER])
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    first, last = events[0].response, events[-1].response
    assert (first.status, first.background, first.output) == ("queued", True, [])
    assert [event.response.status for event in events[1:3]] == ["queued", "in_progress"]
    assert client.responses.retrieve(last.id) == last
    for event in events:
        EVENTS.validate_python(event.to_dict())
    at_once = streamed(live, "one call", tools=[WEATHER])
    assert kinds[2:] == [event["type"] for event in at_once][1:]


def test_a_stream_is_taken_up_again_where_it_broke_off(client: openai.OpenAI) -> None:
    events = begin_stream(client, "talk and call", tools=[WEATHER])
    key = events[0].response.id
    for after in (None, 0, 3, len(events) - 1, len(events) + 5):
        more: Any = {} if after is None else {"starting_after": after}
        again = list(client.responses.retrieve(key, stream=True, **more))
        assert again == events[0 if after is None else after + 1 :]


def test_a_stream_that_is_taken_up_too_late_is_an_error(client: openai.OpenAI, live: Live) -> None:
    events = begin_stream(client, "talk and call", tools=[WEATHER])
    key = events[0].response.id
    logs = live.services.background.logs
    log = logs.find(key)
    assert log is not None
    assert log.oldest is not None
    logs.n_bytes -= log.drop(log.oldest + 5)
    for more in ({}, {"starting_after": 3}):
        with pytest.raises(openai.BadRequestError, match="up to number 4 are not kept") as caught:
            client.responses.retrieve(key, stream=True, **more)  # type: ignore[call-overload]
        assert caught.value.code == "events_gone"
    assert list(client.responses.retrieve(key, stream=True, starting_after=4)) == events[5:]
    assert client.responses.retrieve(key) == events[-1].response


def test_the_longest_tools_do_not_fill_the_server_s_memory(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "_MAX_BYTES", 1_000_000)
    logs = live.services.background.logs
    body: Any = {"model": "scripted", "input": "fall silent", "background": True, "stream": True}
    body |= {"tools": [{**WEATHER, "description": "x" * 300_000}], "tool_choice": "none"}
    begun = []
    for _ in range(4):
        with live.http.stream("POST", "/v1/responses", json=body) as stream:
            first = next(line for line in stream.iter_lines() if line.startswith("data:"))
            begun.append(json.loads(first.removeprefix("data:"))["response"]["id"])
        assert 0 < logs.n_bytes <= 1_000_000
    for key in begun:
        live.http.delete(f"/v1/responses/{key}")
    wait_for(lambda: not live.services.background._tasks)


def test_a_client_that_leaves_does_not_end_what_is_in_the_background(
    client: openai.OpenAI, live: Live, scripted: Llama
) -> None:
    begin: Any = {"model": "scripted", "input": "fall silent", "background": True, "stream": True}
    with client.responses.create(**begin) as stream:
        first = next(stream)
        while next(stream).type != "response.output_text.delta":
            pass
    again = iter(client.responses.retrieve(first.response.id, stream=True, starting_after=2))
    assert next(again).type == "response.output_item.added"  # while it is still being computed
    assert client.responses.retrieve(first.response.id).status == "in_progress"
    engine = scripted.engine
    assert isinstance(engine, ScriptedEngine)
    loaded = live.services.pool.models["scripted"].loaded
    assert loaded is not None
    assert loaded.admission.n_running == 1
    assert client.responses.cancel(first.response.id).status == "cancelled"
    assert [event.type for event in again][-1] == "response.output_text.delta"  # and then it ends
    wait_for(lambda: not live.services.background._tasks)


def test_a_stream_in_the_background_that_fails_says_so(client: openai.OpenAI) -> None:
    kinds = [event.type for event in begin_stream(client, "x " * 5000)]
    assert kinds == ["response.created", "response.queued", "response.failed"]


def test_events_are_there_for_responses_that_were_begun_with_a_stream(
    client: openai.OpenAI, live: Live
) -> None:
    plain = [ask(client, "x").id, ask(client, "x", background=True).id]
    gone = begin_stream(client, "x")[0].response.id
    live.services.background.logs._over.pop(gone).timer.cancel()
    for key in (*plain, gone):
        with pytest.raises(openai.BadRequestError, match="has no events"):
            client.responses.retrieve(key, stream=True)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_none", stream=True)
    deleted = begin_stream(client, "x")[0].response.id
    client.responses.delete(deleted)
    assert live.services.background.logs.find(deleted) is None
