"""Log-likelihoods as lm-evaluation-harness asks for them with `local-completions`, and reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.server.conftest import CONTEXT
from tests.unit.server.live import Live

import puna
from puna.engine.native import NativeEngine
from puna.llama import Llama

EOS = 257


@pytest.fixture(scope="module")
def llama(tiny_folder: Path) -> Iterator[Llama]:
    with puna.load(str(tiny_folder), context=CONTEXT, threads=1) as llama:
        yield llama


def ask(live: Live, **body: Any) -> list[dict[str, Any]]:
    """Choices for a body as the harness makes it."""
    whole = {"model": "tiny", "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    answer = live.http.post("/v1/completions", json={**whole, **body}).raise_for_status().json()
    return sorted(answer["choices"], key=lambda choice: choice["index"])


def read(choice: dict[str, Any], n_context: int, end: int | None) -> tuple[float, bool]:
    """Log-likelihood of what follows the context, and whether it is what greedy decoding gives."""
    logprobs = choice["logprobs"]["token_logprobs"][n_context:end]
    top = choice["logprobs"]["top_logprobs"][n_context:end]
    is_greedy = all(logprob == max(names.values()) for logprob, names in zip(logprobs, top, strict=True))
    return sum(logprobs), is_greedy


def log_probabilities(llama: Llama, ids: list[int]) -> NDArray[np.float64]:
    """[tokens, vocabulary]"""
    assert isinstance(llama.engine, NativeEngine)
    logits = np.asarray(llama.engine.logits(ids), np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def name_of(llama: Llama, token: int) -> str:
    return llama.tokenizer.decode([token], show_special=True)


def expected(llama: Llama, ids: list[int], n_context: int) -> tuple[float, bool]:
    rows = log_probabilities(llama, ids)[n_context - 1 : -1]
    target = ids[n_context:]
    return float(rows[np.arange(len(target)), target].sum()), rows.argmax(-1).tolist() == target


@pytest.fixture(scope="module")
def rows(llama: Llama) -> list[list[int]]:
    """Contexts of 9 tokens with what follows: some text, and what the model itself would say."""
    context = llama.tokenizer.encode("humming, ")
    said = list(llama.generate(context, temperature=0, max_tokens=4, ignore_eos=True).tokens)
    return [context + llama.tokenizer.encode("spit"), context + said, context + said[:3] + [7]]


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_log_likelihoods_of_a_batch_of_ids(
    live: Live, llama: Llama, rows: list[list[int]], max_tokens: int
) -> None:
    choices = ask(live, prompt=rows, max_tokens=max_tokens)
    found = [read(choice, 9, -1 if max_tokens else None) for choice in choices]
    known = [expected(llama, row, 9) for row in rows]
    assert (
        [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in known] == [False, True, False]
    )
    assert [logprob for logprob, _ in found] == pytest.approx([logprob for logprob, _ in known], abs=1e-4)


def test_log_likelihoods_of_a_text(live: Live, llama: Llama) -> None:
    ids = llama.tokenizer.encode("humming, spit")
    (choice,) = ask(live, prompt="humming, spit")
    assert read(choice, 9, -1)[0] == pytest.approx(expected(llama, ids, 9)[0], abs=1e-4)


def test_a_stop_token_counts_as_what_was_generated(live: Live, rows: list[list[int]]) -> None:
    """The harness takes away one token behind the prompt, whatever it is."""
    (plain,) = ask(live, prompt=[rows[0]])
    (stopped,) = ask(live, prompt=[rows[0]], logit_bias={str(EOS): 100})
    assert stopped["finish_reason"] == "stop"
    assert len(stopped["logprobs"]["token_logprobs"]) == len(rows[0]) + 1
    assert read(stopped, 9, -1) == read(plain, 9, -1)


def test_a_prompt_alone_has_its_log_probabilities(live: Live, llama: Llama, rows: list[list[int]]) -> None:
    (choice,) = ask(live, prompt=[rows[0]], max_tokens=0, logprobs=5)
    logprobs = choice["logprobs"]
    assert (choice["text"], choice["finish_reason"]) == ("humming, spit", "length")
    assert [len(logprobs[key]) for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [
        13
    ] * 4
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    found = log_probabilities(llama, rows[0])[:-1]
    for row, names, token in zip(found, logprobs["top_logprobs"][1:], rows[0][1:], strict=True):
        told = [*np.argsort(-row, kind="stable")[:5].tolist(), token]
        # Bytes that are no characters by themselves share a name: the likeliest has it.
        known = {name_of(llama, each): row[each] for each in sorted(told, key=lambda each: row[each])}
        assert names == pytest.approx(known, abs=1e-4)


def test_what_was_drawn_is_told_where_it_is_not_among_the_likeliest(live: Live, llama: Llama) -> None:
    body = {"prompt": "hum", "echo": False, "temperature": 2, "top_p": 1, "max_tokens": 32}
    for n_top in (0, 1):
        (choice,) = ask(live, **body, logprobs=n_top)
        told = choice["logprobs"]
        entries = list(zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True))
        assert [names.get(name, logprob) >= logprob for name, logprob, names in entries] == [True] * 32
        assert all(name in names for name, _, names in entries)
        assert {len(names) for _, _, names in entries} <= {1, n_top + 1}
        assert max(len(names) for _, _, names in entries) == n_top + 1


def test_a_prompt_alone_as_a_stream(live: Live, rows: list[list[int]]) -> None:
    body = {"model": "tiny", "prompt": rows, "max_tokens": 0, "echo": True, "logprobs": 1, "n": 2}
    options = {"stream": True, "stream_options": {"include_usage": True}}
    text = live.http.post("/v1/completions", json={**body, **options}).text
    events = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    whole = live.http.post("/v1/completions", json=body).json()
    assert events[-1]["usage"] == whole["usage"]
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (39, 0)
    pieces = [choice for event in events for choice in event["choices"]]
    assert [p["logprobs"] for p in pieces if p["text"]] == [c["logprobs"] for c in whole["choices"]]
    assert [piece["finish_reason"] for piece in pieces] == [None] * 6 + ["length"] * 6


def test_many_prompts_alone_take_no_turns(live: Live) -> None:
    body = {"model": "tiny", "prompt": [[5, 6]] * 200, "max_tokens": 0, "echo": True, "logprobs": 1, "n": 2}
    choices = live.http.post("/v1/completions", json=body).raise_for_status().json()["choices"]
    assert len(choices) == 400
    assert len({json.dumps(choice["logprobs"]) for choice in choices}) == 1


def test_so_many_log_probabilities_are_refused(live: Live) -> None:
    body = {
        "model": "tiny",
        "prompt": [[5] * 64] * 256,
        "max_tokens": 0,
        "echo": True,
        "logprobs": 20,
        "n": 2,
    }
    answer = live.http.post("/v1/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "logprobs")
    assert "got 688128" in answer.json()["error"]["message"]


@pytest.mark.parametrize("logprobs", [None, 0])
@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([5] * (CONTEXT + 1), f"has {CONTEXT + 1} tokens and at most {CONTEXT} fit"),
        ("", "the prompt is empty"),
        ([5, 6, 999], "token 999 is not in the vocabulary"),
    ],
    ids=["long", "empty", "unknown"],
)
def test_a_prompt_alone_must_be_one(
    prompt: str | list[int], message: str, logprobs: int | None, live: Live
) -> None:
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": logprobs}
    answer = live.http.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    fits = live.http.post("/v1/completions", json={**body, "prompt": [5] * CONTEXT})
    assert fits.json()["choices"][0]["finish_reason"] == "length"


def test_nothing_is_no_answer(live: Live) -> None:
    answer = live.http.post("/v1/completions", json={"model": "tiny", "prompt": "hum", "max_tokens": 0})
    assert answer.status_code == 400
    assert "asks for nothing without `echo`" in answer.json()["error"]["message"]
