"""Llama Stack's agent, which lives in its client: turns of a conversation, and tools that it runs itself."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from ogx_client import OgxClient
from ogx_client.lib.agents.agent import Agent
from tests.unit.server.live import Live


def weather(city: str) -> str:
    """Tell the weather of a city.

    :param city: the city
    """
    return f"33 degrees in {city}"


@pytest.fixture(params=["ogx", "openai"])
def agent(live: Live, request: pytest.FixtureRequest) -> Any:
    base = live.url.removesuffix("/v1")
    client = (
        OgxClient(base_url=base) if request.param == "ogx" else openai.OpenAI(base_url=live.url, api_key="x")
    )
    with client:
        yield Agent(client, model="scripted", instructions="Be brief.", tools=[weather])


def test_an_agent_runs_its_tool_and_goes_on(agent: Any, live: Live) -> None:
    session = agent.create_session("hum")
    asked = [{"type": "message", "role": "user", "content": "one call"}]
    chunks = list(agent.create_turn(asked, session))
    steps = [chunk.event for chunk in chunks if chunk.event.event_type == "step_completed"]
    assert [step.step_type for step in steps] == ["inference", "tool_execution", "inference"]
    (call,) = steps[0].result.function_calls
    assert (call.tool_name, json.loads(call.arguments)) == ("weather", {"city": "Cusco"})
    assert "33 degrees in Cusco" in steps[1].result.tool_responses[0]["content"]
    last = chunks[-1].event
    assert (last.event_type, last.final_text) == ("turn_completed", "It is warm.")
    assert len(last.response_ids) == 2
    said = live.http.get(f"/v1/conversations/{session}/items?order=asc").json()["data"]
    assert [item["type"] for item in said] == ["message", "function_call", "function_call_output", "message"]


def test_an_agent_remembers_the_turns_of_a_session(agent: Any, live: Live) -> None:
    session = agent.create_session("hum")
    for text in ("hum", "stop here"):
        asked = [{"type": "message", "role": "user", "content": text}]
        response = agent.create_turn(asked, session, stream=False)
        assert response.status == "completed"
    assert len(live.http.get(f"/v1/conversations/{session}/items").json()["data"]) == 4
