"""The server does what its OpenAPI document says: schemathesis makes requests up from it.

A few for each operation here; `make schemathesis` makes many.
"""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS
from tests.unit.server.live import Live

EXAMPLES = int(os.environ.get("PUNA_SCHEMA_EXAMPLES", "4"))
# What suits the schema may still be refused, for what schemas cannot say: a prompt that does not fit, two
# fields that exclude one another, an `after` that is in no list.
LEFT_OUT = ("positive_data_acceptance",)


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Ask the model that there is, or hardly anything would be answered."""
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        body["model"] = "scripted"
    return body


def test_the_document_is_true(live: Live) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{live.port}/openapi.json")
    excluded = [CHECKS.get_one(name) for name in LEFT_OUT]
    n_operations = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        n_operations += 1

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:
            case.call_and_validate(excluded_checks=excluded, timeout=20)

        check()
    assert n_operations > 40
