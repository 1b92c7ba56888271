"""The server does what its OpenAPI document says: schemathesis makes requests up from it.

A few for each operation here; `make schemathesis` makes many.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode
from tests.unit.server.live import Live

EXAMPLES = int(os.environ.get("PUNA_SCHEMA_EXAMPLES", "10"))
# What suits the schema may still be refused, for what schemas cannot say: a prompt that does not fit, two
# fields that exclude one another, an `after` that is in no list.
LEFT_OUT = ("positive_data_acceptance",)
REFUSALS = [400, 401, 403, 404, 405, 413, 414]
CONFIG: Any = {"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}}
HUM: Any = {"model": "scripted", "input": "hum", "max_output_tokens": 16}


@pytest.fixture(scope="module")
def schema(live: Live) -> Any:
    config = schemathesis.Config.from_dict(CONFIG)
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{live.port}/openapi.json", config=config)


def operations(schema: Any) -> Iterator[Any]:
    for found in schema.get_all_operations():
        yield found.ok()


def every(strategy: Any, check: Callable[[Any, Any], None]) -> None:
    """Check cases of one operation."""

    @given(case=strategy, data=st.data())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def checked(case: Any, data: Any) -> None:
        check(case, data)
        case.call_and_validate(excluded_checks=[CHECKS.get_one(name) for name in LEFT_OUT], timeout=20)

    checked()


def make(live: Live) -> dict[str, str]:
    """Something of each kind that the server keeps, by the names that paths have for it."""

    def post(path: str, body: Any) -> Any:
        return live.http.post(f"/v1{path}", json=body).raise_for_status().json()

    said = [{"role": "user", "content": "hum"}]
    chat = {"model": "scripted", "messages": said, "max_tokens": 4, "store": True}
    conversation = post("/conversations", {"items": said})["id"]
    return {
        "response_id": post("/responses", HUM)["id"],
        "completion_id": post("/chat/completions", chat)["id"],
        "conversation_id": conversation,
        "item_id": post(f"/conversations/{conversation}/items", {"items": said})["data"][0]["id"],
        "prompt_id": post("/prompts", {"prompt": "Hum."})["prompt_id"],
    }


def about_what_there_is(case: Any, made: dict[str, str], data: Any) -> None:
    """Ask the model that there is, mostly for things that there are: or hardly anything would be answered."""
    if data.draw(st.integers(0, 3)):
        case.path_parameters.update({key: made[key] for key in case.path_parameters if key in made})
    body = case.body
    if not isinstance(body, dict):
        return
    if "model" in body:
        body["model"] = "scripted"
    context = {"previous_response_id": made["response_id"], "conversation": made["conversation_id"]}
    kept = data.draw(st.sampled_from([None, *context])) if context.keys() & body.keys() else None
    for key in (*context, "prompt") if case.path.startswith("/v1/responses") else ():
        body.pop(key, None)
    if kept:
        body[kept] = context[kept]


def test_the_document_is_true(live: Live, schema: Any) -> None:
    n_operations = 0
    for operation in operations(schema):
        n_operations += 1
        made = make(live)
        every(operation.as_strategy(), lambda case, data, made=made: about_what_there_is(case, made, data))
    assert n_operations > 40


def test_what_the_document_forbids_is_refused(schema: Any) -> None:
    for operation in operations(schema):
        if operation.body or operation.query:
            every(operation.as_strategy(GenerationMode.NEGATIVE), lambda case, data: None)
