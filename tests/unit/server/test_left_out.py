"""A model with more rows than tokens: no answer has a token without a text, and no prompt may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import PADDED_ROWS, save_tiny_padded
from tests.unit.server.conftest import hosted
from tests.unit.server.live import Live, running


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("served") / "padded"
    save_tiny_padded(folder)
    with running([hosted(folder)]) as live:
        yield live


@pytest.mark.parametrize("temperature", [0, 1])
def test_answers_and_scores(live: Live, temperature: float) -> None:
    body = {"model": "padded", "prompt": "humming", "logprobs": 20, "echo": True, "logit_bias": {"257": -100}}
    answer = live.http.post("/v1/completions", json={**body, "temperature": temperature, "seed": 1})
    (choice,) = answer.raise_for_status().json()["choices"]
    told = choice["logprobs"]["token_logprobs"][1:]
    assert len(told) == len("humming") - 1 + 16
    assert all(logprob < 0 for logprob in told)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("completions", {"prompt": [[1, 2], [1, PADDED_ROWS - 1]]}),
        ("completions", {"prompt": [1, PADDED_ROWS - 1], "stream": True}),
        ("completions", {"prompt": [1, PADDED_ROWS - 1], "echo": True, "logprobs": 1}),
        ("completions", {"prompt": [1, PADDED_ROWS - 1], "echo": True, "max_tokens": 0}),
        ("embeddings", {"input": [1, PADDED_ROWS - 1]}),
        ("detokenize", {"tokens": [1, PADDED_ROWS - 1]}),
    ],
)
def test_prompts_with_such_an_id_are_refused(live: Live, route: str, body: dict[str, Any]) -> None:
    answer = live.http.post(f"/v1/{route}", json={"model": "padded", **body})
    assert answer.status_code == 400
    assert f"{PADDED_ROWS - 1} is not in the vocabulary" in answer.json()["error"]["message"]
