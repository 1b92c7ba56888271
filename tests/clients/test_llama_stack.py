"""Calls through the clients of Llama Stack: the last one for Python 3.11, and the one after the rename."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llama_stack_client
import ogx_client
import pytest
from llama_stack_client import LlamaStackClient
from ogx_client import OgxClient
from tests.clients.conftest import MODEL, lenient

import puna

HUM: Any = [{"role": "user", "content": "Why do llamas hum?"}]
FUNCTION: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SHORT: Any = {"model": MODEL, "messages": HUM, "max_tokens": 4, "seed": 1}

CHATS: dict[str, Any] = {
    "plain": {},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, *HUM]},
    "a stop text": {"stop": ["a"]},
    "a tool": {"tools": [TOOL]},
    "greedy": {"temperature": 0},
}


@pytest.fixture(params=["old", "new"])
def client(request: pytest.FixtureRequest, stack: LlamaStackClient, ogx: OgxClient) -> Any:
    return {"old": stack, "new": ogx}[request.param]


@pytest.mark.parametrize("name", CHATS)
def test_chat(client: Any, name: str) -> None:
    given = {**SHORT, **CHATS[name]}
    whole = client.chat.completions.create(**given)
    text = whole.choices[0].message.content
    chunks = list(client.chat.completions.create(**given, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == (text or "")


def test_stored_chat(client: Any) -> None:
    made = client.chat.completions.create(**SHORT, extra_body={"store": True})
    found = client.chat.completions.retrieve(made.id)
    assert found.input_messages[0].content == HUM[0]["content"]
    assert made.id in [each.id for each in client.chat.completions.list(order="desc").data]


def test_completions_and_embeddings(client: Any) -> None:
    given: Any = {"model": MODEL, "prompt": "one, two,", "max_tokens": 4, "seed": 1}
    whole = client.completions.create(**given)
    chunks = list(lenient(client).completions.create(**given, stream=True))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert len(client.embeddings.create(model=MODEL, input="hum").data[0].embedding) == 576


RESPONSES: dict[str, Any] = {
    "plain": {},
    "instructions": {"instructions": "Be brief."},
    "messages": {"input": [{"type": "message", **HUM[0]}]},
    "a tool": {"tools": [FUNCTION]},
    "greedy": {"temperature": 0},
}


@pytest.mark.parametrize("name", RESPONSES)
def test_responses(client: Any, name: str) -> None:
    bounded = {"extra_body": {"max_output_tokens": 16, "seed": 1}}
    given: Any = {"model": MODEL, "input": "Hum.", **bounded, **RESPONSES[name]}
    whole = client.responses.create(**given)
    assert whole.id.startswith("resp_")
    assert client.responses.retrieve(whole.id).output[0].id == whole.output[0].id
    events = list(client.responses.create(**given, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output[0].content[0].text
    assert events[-1].type in ("response.completed", "response.incomplete")


def test_kept_responses(client: Any) -> None:
    bounded = {"extra_body": {"max_output_tokens": 16}}
    first = client.responses.create(model=MODEL, input="Hum.", **bounded)
    second = client.responses.create(model=MODEL, input="Again.", previous_response_id=first.id, **bounded)
    items = client.responses.input_items.list(second.id, order="asc").data
    assert [item.content[0].text for item in items][::2] == ["Hum.", "Again."]
    assert client.responses.list(limit=1).data[0].id == second.id


def test_deleted_responses(ogx: OgxClient) -> None:
    made = ogx.responses.create(model=MODEL, input="Hum.", extra_body={"max_output_tokens": 16})
    assert ogx.responses.delete(made.id).deleted
    with pytest.raises(ogx_client.NotFoundError, match="not found"):
        ogx.responses.retrieve(made.id)


def test_conversations(ogx: OgxClient) -> None:
    conversation = ogx.conversations.create(metadata={"a": "b"})
    items: Any = [{"type": "message", **HUM[0]}]
    added = ogx.conversations.items.create(conversation.id, items=items)
    assert added.data[0].id is not None
    ogx.responses.create(
        model=MODEL, input="Hum.", conversation=conversation.id, extra_body={"max_output_tokens": 16}
    )
    assert len(ogx.conversations.items.list(conversation.id, order="asc").data) == 3
    found = ogx.conversations.items.get(added.data[0].id, conversation_id=conversation.id)
    assert found.id == added.data[0].id
    assert ogx.conversations.update(conversation.id, metadata={"c": "d"}).metadata == {"c": "d"}
    assert ogx.conversations.retrieve(conversation.id).id == conversation.id
    assert ogx.conversations.delete(conversation.id).deleted


def test_prompts(ogx: OgxClient) -> None:
    made = ogx.prompts.create(prompt="Speak of {{ topic }}.", variables=["topic"])
    assert (made.version, made.is_default) == (1, True)
    second = ogx.prompts.update(made.prompt_id, prompt="Two.", version=1)
    assert (second.version, second.is_default) == (2, True)
    assert ogx.prompts.set_default_version(made.prompt_id, version=1).version == 1
    assert ogx.prompts.retrieve(made.prompt_id).prompt == "Speak of {{ topic }}."
    assert ogx.prompts.retrieve(made.prompt_id, version=2).prompt == "Two."
    assert [each.version for each in ogx.prompts.versions.list(made.prompt_id)] == [1, 2]
    assert made.prompt_id in [each.prompt_id for each in ogx.prompts.list()]
    ogx.prompts.delete(made.prompt_id)
    with pytest.raises(ogx_client.NotFoundError):
        ogx.prompts.retrieve(made.prompt_id)


def test_models(stack: LlamaStackClient, ogx: OgxClient) -> None:
    (old,) = stack.models.list()
    assert (old.identifier, old.api_model_type, old.provider_id) == (MODEL, "llm", "puna")
    assert stack.models.retrieve(MODEL).identifier == MODEL
    (new,) = ogx.models.list().data
    assert (new.identifier, new.model_type, new.provider_id) == (MODEL, "llm", "puna")
    assert ogx.models.retrieve(MODEL).id == MODEL


def test_the_server(client: Any) -> None:
    assert client.inspect.health().status == "OK"
    assert client.inspect.version().version == puna.__version__
    assert "/v1/responses" in [route.route for route in client.routes.list()]
    (provider,) = client.providers.list()
    assert client.providers.retrieve(provider.provider_id).provider_type == "inline::puna"


ERRORS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "an unknown model": ("NotFoundError", lambda c: c.chat.completions.create(model="x", messages=HUM)),
    "an unknown completion": ("NotFoundError", lambda c: c.chat.completions.retrieve("x")),
    "an unknown response": ("NotFoundError", lambda c: c.responses.retrieve("resp_x")),
    "an unknown provider": ("NotFoundError", lambda c: c.providers.retrieve("x")),
    "no messages": ("BadRequestError", lambda c: c.chat.completions.create(model=MODEL, messages=[])),
    "a tool of the server": (
        "BadRequestError",
        lambda c: c.responses.create(model=MODEL, input="x", tools=[{"type": "web_search"}]),
    ),
    "what comes later": ("NotFoundError", lambda c: c.files.list()),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(client: Any, name: str) -> None:
    module: Any = llama_stack_client if isinstance(client, LlamaStackClient) else ogx_client
    kind, call = ERRORS[name]
    with pytest.raises(getattr(module, kind)):
        call(client)
