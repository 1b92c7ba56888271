from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import soak
from benchmarks.served import Answer
from tests.tiny import save_tiny


def test_clients_come_and_go_and_too_many_are_refused(tmp_path: Path) -> None:
    model, figures = tmp_path / "tiny", tmp_path / "figures.json"
    model.mkdir()
    save_tiny(model)
    options = ["--clients", "16", "--seconds", "2", "--running", "2", "--waiting", "1", "--max-tokens", "24"]
    options += ["--overload-seconds", "3"]
    assert soak.main([str(model), *options, "--json", str(figures)]) == 0
    written = json.loads(figures.read_text())
    assert written["problems"] == []
    assert written["answers"] > 0
    assert written["left"] > 0
    assert written["overload"]["refused"] > 0
    assert written["overload"]["accepted"] > 0
    assert 0 < written["overload"]["p95 of a refusal, ms"] <= written["overload"]["slowest refusal, ms"]


@pytest.mark.parametrize(
    ("answer", "leave_after", "problem"),
    [
        (Answer(200, "zqaaaaaaaaaa zqaaaaaaaaab", is_ended=True), None, None),
        (Answer(200, "zqbcdefghijk", is_ended=True), None, "zqbcdefghijk in the answer about zqaaaaaaaaaa"),
        (Answer(200, "zqzzzzzzzzzz", is_ended=True), None, None),
        (Answer(200, "hm", is_ended=False), None, "the answer about zqaaaaaaaaaa was cut: 'hm'"),
        (Answer(200, "hm", is_ended=False), 1, None),
        (Answer(503), None, "status 503 where there was room"),
    ],
)
def test_what_is_wrong_with_an_answer(answer: Answer, leave_after: int | None, problem: str | None) -> None:
    words = {"zqaaaaaaaaaa", "zqbcdefghijk"}
    assert soak._wrong(answer, "zqaaaaaaaaaa", words, leave_after) == ([problem] if problem else [])


def test_a_percentile_of_what_is_known() -> None:
    assert soak._p95_ms([None, *(n / 1000 for n in range(40, 0, -1))]) == 38
    assert soak._p95_ms([0.0121]) == 12.1


def test_memory_that_grows_is_told() -> None:
    assert soak._growth([300, 100, 100, 100, 101, 102]) == []
    assert soak._growth([1e6, 1e6, 1e6, 1e6, 2e6, 2e6]) == ["memory grew from 1 MB to 2 MB"]
