"""Passes over texts that give no new tokens: their turn, their time, and clients that leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.server.conftest import hosted
from tests.unit.server.live import Live
from tests.unit.server.test_life import CHAT, admission, serving, wait_for
from tests.unit.server.test_tools import WEATHER

from puna.engine.passes import Passes
from puna.engine.request import TokenLogprob
from puna.errors import EngineError
from puna.llama import Llama
from puna.server.hosting.hosted import HostedModel

EMBED = "/v1/embeddings"
COMPLETE = "/v1/completions"


class Held:
    """Passes that are over when a test says so.

    Attributes:
        begun: the texts, in the order in which their passes began.
        futures: of those passes.
        delay_s: after that time they are over by themselves.
    """

    def __init__(self, delay_s: float | None = None) -> None:
        self.begun: list[list[int]] = []
        self.futures: list[Future[Any]] = []
        self.delay_s = delay_s

    def embed(self, tokens: Sequence[int]) -> Future[NDArray[np.float32]]:
        return self._begin(tokens, np.ones(4, np.float32))

    def score(self, tokens: Sequence[int], n_top: int = 0) -> Future[list[TokenLogprob]]:
        return self._begin(tokens, [TokenLogprob(token, -1.0) for token in tokens[1:]])

    def _begin(self, tokens: Sequence[int], result: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.begun.append(list(tokens))
        self.futures.append(future)
        if self.delay_s is not None:
            threading.Timer(self.delay_s, lambda: future.cancelled() or future.set_result(result)).start()
        return future


@pytest.fixture
def held(scripted: Llama, monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held()
    monkeypatch.setattr(scripted.engine, "embed", held.embed)
    monkeypatch.setattr(scripted.engine, "score", held.score)
    return held


def long(names: str) -> list[str]:
    """A text for each name, so long that each is a group of its own."""
    return [f"{name} " * 150 for name in names]


def hang_up(live: Live, route: str, body: dict[str, Any]) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        live.http.post(route, json=body, timeout=0.3)


def test_passes_hold_up_nothing_else(scripted_model: HostedModel, held: Held) -> None:
    """However many there are: more than the default executor has threads."""
    n = 40
    with serving(scripted_model, max_running=n + 1) as live, ThreadPoolExecutor(n) as clients:
        answers = [
            clients.submit(live.http.post, EMBED, json={"model": "scripted", "input": f"a{i}"})
            for i in range(n)
        ]
        wait_for(lambda: len(held.begun) == n)
        said = [{"role": "user", "content": "one call"}]
        chat = {"model": "scripted", "messages": said, "tools": [WEATHER], "max_tokens": 64}
        live.http.post(CHAT, json=chat, timeout=10).raise_for_status()
        words = {"model": "scripted", "prompt": "a"}
        live.http.post("/v1/tokenize", json=words, timeout=10).raise_for_status()
        for future in held.futures:
            future.set_result(np.ones(4, np.float32))
        assert {answer.result().status_code for answer in answers} == {200}


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (EMBED, {"input": ["a", "b", *long("c")]}),
        (COMPLETE, {"prompt": ["a", "b"], "echo": True, "logprobs": 1}),
    ],
)
def test_who_hangs_up_is_not_computed_for(
    scripted_model: HostedModel, held: Held, route: str, body: dict[str, Any]
) -> None:
    """Neither for the texts that go together, nor for those behind them."""
    with serving(scripted_model) as live:
        hang_up(live, route, {"model": "scripted", **body})
        wait_for(lambda: admission(live).n_running == 0)
        assert admission(live).reserved_tokens == 0
        assert [future.cancelled() for future in held.futures] == [True, True]


def test_where_one_does_not_begin_nobody_wants_the_others(
    scripted_model: HostedModel, scripted: Llama, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed(tokens: Sequence[int]) -> Future[NDArray[np.float32]]:
        if held.begun:
            raise EngineError("no second one")
        return held.embed(tokens)

    monkeypatch.setattr(scripted.engine, "embed", embed)
    with serving(scripted_model) as live:
        body = {"model": "scripted", "input": ["a", "b"]}
        assert live.http.post(EMBED, json=body).status_code == 500
        wait_for(lambda: held.futures[0].cancelled())
        assert (admission(live).n_running, admission(live).reserved_tokens) == (0, 0)


def test_who_hangs_up_in_the_queue_never_begins(scripted_model: HostedModel, held: Held) -> None:
    with serving(scripted_model, max_running=1) as live, ThreadPoolExecutor(1) as clients:
        first = clients.submit(live.http.post, EMBED, json={"model": "scripted", "input": "a"})
        wait_for(lambda: admission(live).n_running == 1)
        hang_up(live, EMBED, {"model": "scripted", "input": "b"})
        wait_for(lambda: admission(live).n_waiting == 0)
        held.futures[0].set_result(np.ones(4, np.float32))
        assert first.result().status_code == 200
        assert len(held.begun) == 1


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (EMBED, {"input": long("abcdefgh")}),
        (COMPLETE, {"prompt": long("abcdefgh"), "echo": True, "logprobs": 1}),
        (COMPLETE, {"prompt": long("abcdefgh"), "echo": True, "logprobs": 1, "stream": True}),
    ],
)
def test_a_request_has_one_deadline(
    scripted_model: HostedModel, held: Held, route: str, body: dict[str, Any]
) -> None:
    """Each pass takes less time than the request has, all of them more."""
    held.delay_s = 0.3
    with serving(scripted_model, timeout_s=1) as live:
        answer = live.http.post(route, json={"model": "scripted", **body})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        assert len(held.begun) < 8
        wait_for(lambda: admission(live).n_running == 0)


def test_time_that_runs_out_in_the_queue_is_an_error(scripted_model: HostedModel, held: Held) -> None:
    with serving(scripted_model, max_running=1, timeout_s=0.5) as live, ThreadPoolExecutor(2) as clients:
        sent = [
            clients.submit(live.http.post, EMBED, json={"model": "scripted", "input": name}) for name in "ab"
        ]
        assert {answer.result().status_code for answer in sent} == {504}
        assert (admission(live).n_running, admission(live).n_waiting) == (0, 0)


def test_the_same_text_is_computed_once(scripted_model: HostedModel, held: Held) -> None:
    held.delay_s = 0
    with serving(scripted_model) as live:
        body = {"prompt": ["hum", "spit", "hum"], "n": 4, "echo": True, "logprobs": 1, "max_tokens": 2}
        answer = live.http.post(COMPLETE, json={"model": "scripted", **body}).json()
        assert len(held.begun) == 2
        found = [choice["logprobs"]["token_logprobs"][:3] for choice in answer["choices"]]
        assert found == [[None, -1.0, -1.0]] * 12
        vectors = live.http.post(EMBED, json={"model": "scripted", "input": ["hum"] * 5}).json()
        assert len(held.begun) == 3
        assert len(vectors["data"]) == 5


def test_short_texts_begin_together_and_each_gets_its_own(scripted_model: HostedModel, held: Held) -> None:
    texts = [*map(str, range(20)), *long("a")]
    with serving(scripted_model) as live, ThreadPoolExecutor(1) as clients:
        asked = clients.submit(live.http.post, EMBED, json={"model": "scripted", "input": texts})
        for first, end in ((0, 16), (16, 20), (20, 21)):  # sixteen blocks at once
            wait_for(lambda end=end: len(held.begun) == end)  # type: ignore[misc]
            assert admission(live).reserved_tokens >= 256
            for i in reversed(range(first, end)):
                held.futures[i].set_result(np.eye(21, dtype=np.float32)[i])
        rows = [row["embedding"] for row in asked.result().json()["data"]]
    assert np.array_equal(rows, np.eye(21))


def test_short_texts_fit_a_small_cache_one_after_the_other(
    scripted_model: HostedModel, scripted: Llama, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripted.engine, "cache_tokens", 64)
    held.delay_s = 0
    with serving(scripted_model) as live:
        body = {"model": "scripted", "input": list("abcdefghij")}
        assert len(live.http.post(EMBED, json=body).json()["data"]) == 10


def test_a_request_for_several_passes_is_not_sent_away_half_way(
    scripted_model: HostedModel, held: Held
) -> None:
    """It keeps its place, though the queue fills up behind it."""
    with serving(scripted_model, max_running=1, max_waiting=1) as live, ThreadPoolExecutor(2) as clients:
        first = clients.submit(live.http.post, EMBED, json={"model": "scripted", "input": long("ab")})
        wait_for(lambda: len(held.begun) == 1)
        second = clients.submit(live.http.post, EMBED, json={"model": "scripted", "input": "c"})
        wait_for(lambda: admission(live).n_waiting == 1)
        for n in (1, 2, 3):
            wait_for(lambda n=n: len(held.begun) == n)  # type: ignore[misc]
            held.futures[n - 1].set_result(np.ones(4, np.float32))
        assert (first.result().status_code, second.result().status_code) == (200, 200)


def test_a_text_that_cannot_fit_does_not_wait_to_be_refused(
    scripted_model: HostedModel, scripted: Llama, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripted.engine, "context_tokens", 64)
    with serving(scripted_model) as live:
        body = {"model": "scripted", "input": ["a", "hum " * 100]}
        assert "too long" in live.http.post(EMBED, json=body).json()["error"]["message"]
        assert held.begun == []


@pytest.mark.parametrize(
    ("route", "body"),
    [(EMBED, {"input": "hum"}), (COMPLETE, {"prompt": "hum", "echo": True, "logprobs": 1})],
)
def test_what_takes_longer_than_the_drain_is_sent_away(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, route: str, body: dict[str, Any]
) -> None:
    monkeypatch.setattr(Passes, "step", lambda *_: time.sleep(0.01))
    with ThreadPoolExecutor(1) as clients:
        with serving(hosted(tiny_folder), drain_s=0.3) as live:
            url = f"http://127.0.0.1:{live.port}{route}"  # by a client that stays to the end
            asked = clients.submit(httpx2.post, url, json={"model": "tiny", **body})
            wait_for(lambda: admission(live).n_running == 1)
        answer = asked.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
