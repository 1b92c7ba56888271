"""The call of the model cards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import save_tiny

import puna
from puna.errors import ConfigError, UnknownModelError

MESSAGES = [
    {"role": "system", "content": "You are a pirate chatbot who always responds in pirate speak!"},
    {"role": "user", "content": "Who are you?"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Iterator[Any]:
    pipe = puna.pipeline("text-generation", str(folder))
    yield pipe
    pipe.llama.close()


def test_the_model_card_s_example(default_gguf: Path) -> None:
    model_id = str(default_gguf)
    pipe = puna.pipeline(
        "text-generation",
        model=model_id,
        torch_dtype=torch.bfloat16,
        device_map="auto",
    )
    outputs = pipe(
        MESSAGES,
        max_new_tokens=16,
    )
    assert list(pipe.llama.info.formats) == ["bf16"]
    *before, last = outputs[0]["generated_text"]
    assert before == MESSAGES
    assert last["role"] == "assistant"
    assert len(last["content"].split()) >= 3
    pipe.llama.close()


def test_a_text_goes_on(pipe: Any) -> None:
    answer = pipe.llama.generate("hum", max_tokens=9, seed=4).text
    assert pipe("hum", max_new_tokens=9, seed=4) == [{"generated_text": "hum" + answer}]
    assert pipe("hum", max_new_tokens=9, seed=4, return_full_text=False) == [{"generated_text": answer}]


def test_messages_are_answered(pipe: Any) -> None:
    answer = pipe.llama.chat(MESSAGES, max_tokens=9, seed=4).result().text
    full = pipe(MESSAGES, max_new_tokens=9, seed=4)
    assert full == [{"generated_text": [*MESSAGES, {"role": "assistant", "content": answer}]}]
    assert pipe(MESSAGES, max_new_tokens=9, seed=4, return_full_text=False) == [{"generated_text": answer}]


def test_without_sampling_it_is_greedy(pipe: Any) -> None:
    greedy = pipe.llama.generate("hum", max_tokens=20, temperature=0).text
    assert pipe("hum", max_new_tokens=20, do_sample=False) == [{"generated_text": "hum" + greedy}]


@pytest.mark.parametrize(
    ("settings", "formats"),
    [
        ({}, ["f32"]),
        ({"dtype": "auto"}, ["f32"]),
        ({"dtype": "float32", "torch_dtype": torch.bfloat16}, ["f32"]),
        ({"dtype": torch.float16}, ["bf16"]),
        ({"dtype": np.float32, "device_map": "cpu"}, ["f32"]),
        ({"torch_dtype": torch.bfloat16, "device_map": "auto"}, ["bf16"]),
    ],
)
def test_types_of_weights(folder: Path, settings: Any, formats: list[str]) -> None:
    with puna.pipeline("text-generation", str(folder), **settings).llama as llama:
        assert list(llama.info.formats) == formats


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("text-generaton", {}, "task 'text-generaton' is unknown; did you mean 'text-generation'"),
        ("text-generation", {"device_map": "cuda"}, "`device_map` must be 'auto' or 'cpu', got 'cuda'"),
        ("text-generation", {"dtype": torch.int8}, "`dtype` 'int8' is unknown; .*float32"),
    ],
)
def test_other_arguments_are_refused(folder: Path, task: str, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        puna.pipeline(task, str(folder), **settings)


def test_an_unknown_model() -> None:
    with pytest.raises(UnknownModelError, match="no model is called 'llama-9'"):
        puna.pipeline("text-generation", "llama-9")
