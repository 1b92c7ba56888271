"""Answers to the schemas of the JSON Schema Test Suite, held against another implementation of JSON Schema.

`benchmarks/schemas.py` asks the default model about all of them; here it is asked about some.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from tests.unit.constraints.walks import random_answer

import puna
from puna.constraints import Compiler, JsonSchema
from puna.tokens import Tokenizer

N_CASES = 192
ASKED_EVERY = 8  # a model takes a while


@pytest.fixture(scope="module")
def cases(golden: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = golden("json_schema_suite.jsonl")
    assert len(found) == N_CASES
    # Those about the regular expressions of ECMAScript are read otherwise by Python, and so by its validator.
    return [case for case in found if "\\" not in json.dumps(case["schema"]).replace('\\"', "")]


@pytest.fixture(scope="module")
def compiler(smollm: Tokenizer) -> Compiler:
    return Compiler(smollm, smollm.vocab_size)


def problem(text: str, schema: Any) -> str | None:
    errors = jsonschema.Draft202012Validator(schema).iter_errors(json.loads(text))
    return next((error.message for error in errors), None)


def test_random_answers_suit_every_schema(
    cases: list[dict[str, Any]], compiler: Compiler, smollm: Tokenizer
) -> None:
    wrong, n_whole = [], 0
    for case in cases:
        for seed in range(3):
            ids = random_answer(compiler, JsonSchema(case["schema"]), min(smollm.eos_ids), seed, limit=60)
            if ids is None:
                continue
            n_whole += 1
            text = smollm.decode(ids)
            if reason := problem(text, case["schema"]):
                wrong.append((case["case"], text, reason))
    assert wrong == []
    assert n_whole > 1.5 * N_CASES


@pytest.fixture(scope="module")
def llama(store_home: Any) -> Iterator[puna.Llama]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUNA_HOME", str(store_home))
        with puna.load("smollm2-135m-instruct") as llama:
            yield llama


def test_the_default_model_gives_valid_json(cases: list[dict[str, Any]], llama: puna.Llama) -> None:
    asked = cases[::ASKED_EVERY]
    streams = []
    for case in asked:
        question = puna.User(f"Write JSON for this schema: {json.dumps(case['schema'])}")
        options: Any = {"constraint": JsonSchema(case["schema"]), "max_tokens": 48, "temperature": 0}
        streams.append(llama.chat([question], repetition_penalty=1.1, **options))
    n_whole = 0
    for case, stream in zip(asked, streams, strict=True):
        answer = stream.result()
        if answer.finish_reason == "stop":
            n_whole += 1
            assert problem(answer.text, case["schema"]) is None, case["case"]
    assert n_whole > len(asked) // 2
