"""Multiple-choice questions from a file: `accuracy`, with `read_questions`.

A file is a benchmark of its own: a line of JSON a question, ``{"question": ..., "choices": [...], "answer":
0}``. The question is the whole prompt, examples and the words before the answer included; the choice is what
follows it. A model's choice is the one that it finds likeliest, the sum over its tokens, as the harnesses
that call it ``acc`` have it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puna.engine.native import NativeEngine
from puna.errors import CapacityError, ConfigError
from puna.evaluate.compare import log_probabilities
from puna.llama import Llama
from puna.prompt.records import read_objects

__all__ = ["Question", "accuracy", "read_questions"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question and what may be answered.

    Attributes:
        question: the prompt.
        choices: at least two continuations of it.
        answer: which of them is right.
    """

    question: str
    choices: tuple[str, ...]
    answer: int


def read_questions(path: Path) -> list[Question]:
    """Read a file of questions.

    Raises:
        ConfigError: the file cannot be read, is empty, or a line is no question.
    """
    found = [_question(where, raw) for where, raw in read_objects(path)]
    if not found:
        raise ConfigError(f"{path} has no questions; it needs a JSON object a line")
    return found


def _question(where: str, raw: Any) -> Question:
    match raw:
        case {"question": str(question), "choices": [*choices], "answer": int(answer)} if (
            question
            and len(choices) >= 2
            and all(isinstance(choice, str) and choice for choice in choices)
            and not isinstance(answer, bool)
            and 0 <= answer < len(choices)
        ):
            return Question(question, tuple(choices), answer)
    raise ConfigError(
        f"{where}: needs `question`, at least two `choices` and the place of the right one as `answer`, got "
        f"{reprlib.repr(raw):.100}"
    )


def accuracy(llama: Llama, questions: Sequence[Question]) -> float:
    """Share of the questions for which the right choice is the model's likeliest.

    Args:
        llama: the model.
        questions: at least one.

    Raises:
        CapacityError: a question and a choice do not fit the context.
    """
    return float(np.mean([_chosen(llama, question) == question.answer for question in questions]))


def _chosen(llama: Llama, question: Question) -> int:
    begin = _encode(llama, question.question)
    return int(np.argmax([_likelihood(llama, begin, question.question + c) for c in question.choices]))


def _encode(llama: Llama, text: str) -> list[int]:
    tokenizer = llama.tokenizer
    first = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    return first + tokenizer.encode(text)


def _likelihood(llama: Llama, begin: list[int], text: str) -> float:
    """Log-probability of what follows the question; where its last token joins with that, from there on."""
    tokens = _encode(llama, text)
    start = next((i for i, (a, b) in enumerate(zip(begin, tokens, strict=False)) if a != b), len(begin))
    start = max(1, min(start, len(tokens) - 1))
    engine = llama.engine
    assert isinstance(engine, NativeEngine)
    if len(tokens) > engine.context_tokens:
        raise CapacityError(
            f"a question of {len(tokens)} tokens needs a context of as many, this one has "
            f"{engine.context_tokens}; use a shorter one"
        )
    scores = log_probabilities(engine.logits(tokens)[start - 1 : -1])
    return float(scores[np.arange(len(tokens) - start), tokens[start:]].sum())
