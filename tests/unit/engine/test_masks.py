"""Greedy constrained answers: those of a mask at every token, however they are computed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from puna import _native, load
from puna.constraints import Choices, Constraint, Regex
from puna.engine import masks
from puna.engine.native import NativeEngine
from puna.engine.native_parts import new_sampler
from puna.engine.request import Request, SamplingParams

# What is forced can be begun with a shorter token, " the" say, which the model likes better.
CONSTRAINTS: list[Constraint] = [Choices([" thermodynamics"]), Regex(": the sheep belongs to thermodynamics")]
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
    for found, tokens in zip(answers(default_gguf, speculation, at_once), expected, strict=True):
        assert set(found) == {tokens}


def test_a_row_is_picked_again_only_behind_its_own_step(engine: NativeEngine) -> None:
    batch = (
        np.array([1, 2], np.int32),
        np.array([[2, 0]], np.int64),
        np.array([[0]], np.int32),
        np.array([1], np.int64),
    )
    params = SamplingParams(temperature=0, seed=0)
    sampler = new_sampler(Request(prompt=[1], params=params, stop_ids=frozenset(), sink=print))
    runner = engine._runner
    picked = runner.sample(*batch, [sampler])[0][0].token
    logits = runner.logits(*batch)[0]
    logits[picked] = -np.inf
    mask = np.full(9, 0xFFFFFFFF, np.uint32)
    with pytest.raises(_native.NativeError, match="there is no output row 0 of the 0 that were sampled last"):
        runner.pick_again(0, sampler, mask)
    assert runner.sample(*batch, [sampler])[0][0].token == picked
    mask[picked // 32] &= ~np.uint32(1 << picked % 32)
    assert runner.pick_again(0, sampler, mask).token == logits.argmax()
    for changes in ({"temperature": 1.0}, {"logit_bias": {3: 1.0}}, {"presence_penalty": 0.5}):
        other = replace(params, **changes)  # type: ignore[arg-type]
        drawn = new_sampler(Request(prompt=[1], params=other, stop_ids=frozenset(), sink=print))
        with pytest.raises(_native.NativeError, match="the sampler draws, or has bias or penalties"):
            runner.pick_again(0, drawn, mask)
    for row in (-1, 1):
        with pytest.raises(_native.NativeError, match=f"no output row {row} of the 1"):
            runner.pick_again(row, sampler, mask)
    with pytest.raises(_native.NativeError, match="a bit for each of 260 tokens, got 256"):
        runner.pick_again(0, sampler, mask[:8])
