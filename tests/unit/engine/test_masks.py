"""Greedy constrained answers: those of a mask at every token, however they are computed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from puna import load
from puna.constraints import Choices, Constraint, JsonSchema, Regex
from puna.engine import masks

# What is forced can be begun with a shorter token, " the" say, which the model likes better.
CONSTRAINTS: list[Constraint] = [
    Choices([" thermodynamics"]),
    Regex(r":( the sheep belongs to thermodynamics)"),
    JsonSchema(
        {
            "type": "object",
            "properties": {"theory of it": {"enum": ["notable"]}},
            "required": ["theory of it"],
        }
    ),
]
PROMPT = "Which animals? A sheep: the sheep belongs to"


def answers(model: Path, speculation: str, at_once: int) -> list[list[tuple[int, ...]]]:
    """Tokens, of as many answers at once under each constraint."""
    with (
        load(str(model), context=256, threads=1, speculation=speculation) as llama,
        ThreadPoolExecutor(at_once) as pool,
    ):
        prompt = llama.tokenizer.encode(PROMPT)

        def ask(constraint: Constraint) -> tuple[int, ...]:
            return llama.generate(prompt, temperature=0, max_tokens=30, constraint=constraint).tokens

        return [list(pool.map(ask, [constraint] * at_once)) for constraint in CONSTRAINTS]


@pytest.fixture(scope="module")
def expected(default_gguf: Path) -> list[tuple[int, ...]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_takes_likeliest", lambda params: False)
        return [tokens for (tokens,) in answers(default_gguf, "off", 1)]


@pytest.mark.parametrize(("speculation", "at_once"), [("off", 1), ("lookup", 1), ("lookup", 12)])
def test_forced_tokens_are_the_same(
    default_gguf: Path, expected: list[tuple[int, ...]], speculation: str, at_once: int
) -> None:
    assert [set(each) for each in answers(default_gguf, speculation, at_once)] == [
        {tokens} for tokens in expected
    ]
