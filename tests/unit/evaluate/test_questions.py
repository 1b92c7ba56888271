from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.tiny import save_tiny
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from puna.errors import CapacityError, ConfigError
from puna.evaluate.questions import Question, accuracy, read_questions
from puna.llama import load


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    folder = tmp_path_factory.mktemp("model")
    return folder, save_tiny(folder)


def chosen_by_transformers(folder: Path, model: LlamaForCausalLM, question: Question) -> int:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin = tokenizer.encode(question.question).ids
    sums = []
    for choice in question.choices:
        tokens = begin + tokenizer.encode(choice).ids
        with torch.no_grad():
            scores = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        sums.append(sum(scores[i - 1, tokens[i]].item() for i in range(len(begin), len(tokens))))
    return max(range(len(sums)), key=sums.__getitem__)


def test_choices_are_those_of_transformers(model: tuple[Path, LlamaForCausalLM]) -> None:
    folder, theirs = model
    asked = [
        Question(f"What is {i}?\nAnswer:", (" hum", " a llama", f" {i}", " x"), i % 4) for i in range(12)
    ]
    right = [chosen_by_transformers(folder, theirs, question) == question.answer for question in asked]
    with load(str(folder)) as llama:
        assert accuracy(llama, asked) == sum(right) / len(right)
        best = [Question(q.question, q.choices, chosen_by_transformers(folder, theirs, q)) for q in asked]
        assert accuracy(llama, best) == 1.0


def test_a_question_that_does_not_fit(model: tuple[Path, LlamaForCausalLM]) -> None:
    with (
        load(str(model[0]), context=32) as llama,
        pytest.raises(
            CapacityError, match="a question of 41 tokens needs a context of as many, this one has 32"
        ),
    ):
        accuracy(llama, [Question("x" * 40, ("a", "b"), 0)])


def test_a_file_of_questions(tmp_path: Path) -> None:
    path = tmp_path / "mmlu.jsonl"
    line = {"question": "Why?", "choices": [" a", " b"], "answer": 1}
    path.write_text(f"{json.dumps(line)}\n\n{json.dumps(line | {'answer': 0})}\n")
    assert read_questions(path) == [Question("Why?", (" a", " b"), 1), Question("Why?", (" a", " b"), 0)]
    path.write_text(json.dumps(line | {"question": "a\u2028b\x85"}, ensure_ascii=False), encoding="utf-8")
    assert read_questions(path)[0].question == "a\u2028b\x85"


@pytest.mark.parametrize(
    "line",
    [
        '{"question": "", "choices": ["a", "b"], "answer": 0}',
        '{"question": "q", "choices": ["a"], "answer": 0}',
        '{"question": "q", "choices": ["a", ""], "answer": 0}',
        '{"question": "q", "choices": ["a", "b"], "answer": 2}',
        '{"question": "q", "choices": ["a", "b"], "answer": true}',
        "[1]",
        "[" * 900 + "]" * 900,
    ],
)
def test_what_is_no_question_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mmlu.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(ConfigError, match=r"mmlu\.jsonl, line 2: needs `question`, at least two `choices`"):
        read_questions(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as text"):
        read_questions(tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="has no questions"):
        read_questions(tmp_path / "empty")
    (tmp_path / "broken").write_text("{")
    with pytest.raises(ConfigError, match="line 1: is not JSON"):
        read_questions(tmp_path / "broken")
