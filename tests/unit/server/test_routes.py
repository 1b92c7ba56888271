"""Routes other than chat: completions, embeddings, models, tokens, and what the server says of itself."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from pydantic import TypeAdapter
from tests.unit.server.conftest import CONTEXT, hosted
from tests.unit.server.live import Live, running
from tests.unit.server.test_life import wait_for

import puna
from puna import Llama


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def llama(tiny_folder: Path) -> Iterator[Llama]:
    with puna.load(str(tiny_folder), threads=1, context=CONTEXT) as llama:
        yield llama


def test_a_completion_is_the_python_api_s(client: openai.OpenAI, llama: Llama) -> None:
    answer = client.completions.create(model="tiny", prompt="hum", seed=3, max_tokens=10)
    expected = llama.generate("hum", seed=3, max_tokens=10)
    assert answer.id.startswith("cmpl-")
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (expected.text, "length")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 10)


def test_the_default_is_sixteen_tokens(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="hum", extra_body={"logit_bias": {"257": -100}})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_prompts_in_every_form_agree(client: openai.OpenAI, llama: Llama) -> None:
    ids = llama.tokenizer.encode("hum")
    forms = ["hum", ["hum"], ids, [ids]]
    texts = [
        client.completions.create(model="tiny", prompt=form, seed=3, max_tokens=8).choices[0].text  # type: ignore[call-overload]
        for form in forms
    ]
    assert len(set(texts)) == 1


def test_choices_of_several_prompts_stand_side_by_side(client: openai.OpenAI, llama: Llama) -> None:
    answer = client.completions.create(model="tiny", prompt=["a", "b"], n=2, seed=1, max_tokens=6)
    expected = [llama.generate(p, seed=s, max_tokens=6).text for p in "ab" for s in (1, 2)]
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 2


def test_streamed_completions_join(client: openai.OpenAI) -> None:
    texts = ["", ""]
    for chunk in client.completions.create(
        model="tiny", prompt=["a", "b"], seed=1, max_tokens=6, echo=True, stream=True
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    whole = client.completions.create(model="tiny", prompt=["a", "b"], seed=1, max_tokens=6, echo=True)
    assert texts == [choice.text for choice in whole.choices]
    assert [text[0] for text in texts] == ["a", "b"]


def test_echo_tells_log_probabilities_of_the_prompt(client: openai.OpenAI, llama: Llama) -> None:
    answer = client.completions.create(
        model="tiny", prompt="humming", seed=1, max_tokens=3, echo=True, logprobs=1
    )
    found = answer.choices[0].logprobs
    assert found is not None
    scores = [each.logprob for each in llama.engine.score(llama.tokenizer.encode("humming")).result()]
    assert found.token_logprobs is not None
    assert found.token_logprobs[:7] == [None, *scores]
    assert len(found.token_logprobs) == 10
    assert found.tokens is not None
    assert "".join(found.tokens[:7]) == "humming"
    assert found.text_offset is not None
    assert found.text_offset[:8] == list(range(8))


@pytest.mark.parametrize(
    ("model", "prompt", "offsets"),
    [
        ("tiny", "\u00e9\U0001f468 x", [0, 0, 1, 1, 1, 1, 2, 3]),  # a byte a token
        ("scripted", [256, 97, 98], [0, 17, 18]),  # a special token, which stands in the text
    ],
)
def test_tokens_begin_where_the_text_has_them(
    model: str, prompt: str | list[int], offsets: list[int], client: openai.OpenAI
) -> None:
    answer = client.completions.create(
        model=model, prompt=prompt, seed=1, max_tokens=3, echo=True, logprobs=0
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.text_offset is not None
    assert found.text_offset[: len(offsets)] == offsets
    shown = client.completions.create(model=model, prompt=prompt, max_tokens=0, echo=True).choices[0].text
    assert found.text_offset[len(offsets)] == len(shown)  # where the answer begins


def test_tokens_begin_where_they_do_though_their_text_was_held_back(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="scripted", prompt="stop here", stop=["END after all"], max_tokens=20, logprobs=0
    )
    assert answer.choices[0].text == "before END after"
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.text_offset == list(range(16))


def test_embeddings_are_the_python_api_s(client: openai.OpenAI, llama: Llama) -> None:
    expected = llama.embed(["hum", "spit at"])
    for encoding in ("float", "base64"):
        answer = client.embeddings.create(
            model="tiny",
            input=["hum", "spit at"],
            encoding_format=encoding,  # type: ignore[arg-type]
        )
        rows = [row.embedding for row in answer.data]
        found = [
            np.frombuffer(base64.b64decode(row), np.float32) if isinstance(row, str) else np.float32(row)
            for row in rows
        ]
        assert np.array_equal(np.stack(found), expected)
        assert (answer.usage.prompt_tokens, [row.index for row in answer.data]) == (10, [0, 1])


def test_embeddings_have_the_model_s_own_size(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="must be 48"):
        client.embeddings.create(model="tiny", input="hum", dimensions=7)


def test_models_are_listed_and_found(client: openai.OpenAI, live: Live) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "scripted"]
    model = live.http.get("/v1/models/tiny").json()
    assert (model["object"], model["owned_by"]) == ("model", "puna")
    assert model["custom_metadata"] == {
        "model_type": "llm",
        "provider_id": "puna",
        "provider_resource_id": "tiny",
        "context_length": CONTEXT,
    }
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_tokens_are_the_tokenizer_s(live: Live, llama: Llama) -> None:
    text = "Qué <|user|> hum"
    found = live.http.post("/v1/tokenize", json={"model": "tiny", "prompt": text}).json()
    assert found == {
        "tokens": llama.tokenizer.encode(text),
        "count": len(llama.tokenizer.encode(text)),
        "max_model_len": CONTEXT,
    }
    back = live.http.post("/v1/detokenize", json={"model": "tiny", "tokens": found["tokens"]}).json()
    assert back == {"prompt": text}


def test_the_server_tells_about_itself(live: Live) -> None:
    health, head = live.http.get("/v1/health"), live.http.head("/v1/health")
    assert health.json() == {"status": "OK"}
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == health.headers["content-length"]
    assert live.http.get("/v1/version").json() == {"version": puna.__version__}
    (provider,) = live.http.get("/v1/providers").json()["data"]
    assert provider["health"] == {"status": "OK"}
    assert live.http.get("/v1/providers/puna").json() == provider
    assert live.http.get("/v1/providers/other").status_code == 404
    routes = {(r["method"], r["route"]) for r in live.http.get("/v1/inspect/routes").json()["data"]}
    assert routes == {
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/chat/completions/{completion_id}"),
        ("POST", "/v1/chat/completions/{completion_id}"),
        ("DELETE", "/v1/chat/completions/{completion_id}"),
        ("GET", "/v1/chat/completions/{completion_id}/messages"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/responses/input_tokens"),
        ("POST", "/v1/responses/compact"),
        ("GET", "/v1/responses"),
        ("GET", "/v1/responses/{response_id}"),
        ("DELETE", "/v1/responses/{response_id}"),
        ("POST", "/v1/responses/{response_id}/cancel"),
        ("GET", "/v1/responses/{response_id}/input_items"),
        ("POST", "/v1/conversations"),
        ("GET", "/v1/conversations/{conversation_id}"),
        ("POST", "/v1/conversations/{conversation_id}"),
        ("DELETE", "/v1/conversations/{conversation_id}"),
        ("GET", "/v1/conversations/{conversation_id}/items"),
        ("POST", "/v1/conversations/{conversation_id}/items"),
        ("GET", "/v1/conversations/{conversation_id}/items/{item_id}"),
        ("DELETE", "/v1/conversations/{conversation_id}/items/{item_id}"),
        ("POST", "/v1/prompts"),
        ("GET", "/v1/prompts"),
        ("GET", "/v1/prompts/{prompt_id}"),
        ("PUT", "/v1/prompts/{prompt_id}"),
        ("DELETE", "/v1/prompts/{prompt_id}"),
        ("PUT", "/v1/prompts/{prompt_id}/set-default-version"),
        ("GET", "/v1/prompts/{prompt_id}/versions"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{name}"),
        ("POST", "/v1/tokenize"),
        ("POST", "/v1/detokenize"),
        ("GET", "/v1/health"),
        ("GET", "/v1/version"),
        ("GET", "/v1/providers"),
        ("GET", "/v1/providers/{name}"),
        ("GET", "/v1/inspect/routes"),
        ("GET", "/v1/admin/state"),
        ("POST", "/v1/admin/models/{name}/unload"),
    }
    assert "ErrorReply" in live.http.get("/openapi.json").json()["components"]["schemas"]


def test_the_page_of_the_document_needs_nobody_else(live: Live) -> None:
    page = live.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    framed = page.headers["x-frame-options"], page.headers["content-security-policy"]
    assert framed == ("DENY", "frame-ancestors 'none'")
    wanted = re.findall(r'(?:src|href|url)(?:=|: )["\']([^"\']+)', page.text)
    assert len(wanted) == 4
    for address in wanted:
        assert address.startswith("/")
        assert live.http.get(address).status_code == 200, address
    assert "http" not in page.text
    assert live.http.get("/docs/files/..%2f__init__.py").status_code == 404


def test_figures_are_told_to_prometheus(live: Live) -> None:
    live.http.post("/v1/completions", json={"model": "tiny", "prompt": "hum", "max_tokens": 2})
    text = live.http.get("/metrics").text
    assert 'puna_tokens_total{kind="completion",model="tiny"}' in text
    assert 'puna_time_to_first_token_seconds_count{model="tiny"}' in text
    assert 'puna_running{model="tiny"} 0.0' in text
    assert 'puna_cache_tokens_reserved{model="tiny"} 0.0' in text
    assert 'puna_requests_total{method="POST",route="/completions",status="200"}' in text


def counts(live: Live) -> dict[tuple[str, ...], float]:
    """Requests by method, route and status."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in live.services.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "puna_requests_total"
    }


def test_requests_are_counted_by_method_and_route(live: Live) -> None:
    for ask in (live.http.get, live.http.delete, live.http.delete):
        ask("/v1/responses/x")
    wait_for(lambda: counts(live).get(("DELETE", "/responses/{response_id}", "404")) == 2)
    assert counts(live)["GET", "/responses/{response_id}", "404"] == 1


def test_requests_that_are_refused_make_no_figures_of_their_own(live: Live) -> None:
    def ask(word: str) -> None:
        n_before, n = sum(counts(live).values()), 2
        for path in (
            f"/{word}",
            f"/v1/{word}",
            f"/v1/responses/{word}",
            f"/v1/models/{word}",
            f"/docs/{word}",
        ):
            for method in ("GET", "PUT", "PROPFIND", "MKCOL"):
                assert live.http.request(method, path).status_code in (404, 405)
                n += 1
        assert live.http.get("/v1/models", headers={"Host": word}).status_code == 403
        assert live.http.get("/v1/models", headers={"Content-Encoding": word}).status_code == 415
        wait_for(lambda: sum(counts(live).values()) == n_before + n)

    ask("first")
    before = counts(live).keys()
    for i in range(5):
        ask(f"other{i}")
    assert counts(live).keys() == before
    assert {method for method, _, _ in before} == {"GET", "POST", "PUT", "DELETE", "_OTHER"}


def test_state_tells_what_is_in_memory(live: Live) -> None:
    live.http.post("/v1/tokenize", json={"model": "tiny", "prompt": "hum"})
    state = live.http.get("/v1/admin/state").json()
    tiny = state["models"][0]
    assert (tiny["id"], tiny["is_loaded"], tiny["running"], tiny["waiting"]) == ("tiny", True, 0, 0)
    assert tiny["cache_tokens"] % CONTEXT == 0
    assert live.http.post("/v1/admin/models/tiny/unload").json() == {"id": "tiny", "object": "model.unloaded"}
    assert live.http.get("/v1/admin/state").json()["models"][0]["is_loaded"] is False
    answer = live.http.post("/v1/completions", json={"model": "tiny", "prompt": "hum", "max_tokens": 2})
    assert answer.status_code == 200


def test_routes_are_ready_before_the_first_request(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    begin = TypeAdapter.__init__

    def counted(self: TypeAdapter[Any], *given: Any, **more: Any) -> None:
        made.append(given)
        begin(self, *given, **more)

    with running([hosted(tiny_folder)]) as live:
        monkeypatch.setattr(TypeAdapter, "__init__", counted)
        for path in ("/v1/models", "/v1/openai/v1/models", "/v1/conversations/x"):
            live.http.get(path)
    assert made == []
