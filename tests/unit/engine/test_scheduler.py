"""What a step holds: answers first, then prompts, of which short ones do not wait for long ones."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from puna.engine.blocks import BlockManager
from puna.engine.pace import Pace, pace_of
from puna.engine.request import Request, SamplingParams
from puna.engine.scheduler import Scheduler
from puna.engine.sequence import Sequence
from puna.models.config import ModelConfig

STEP, SIZE = 16, 4
IDS = itertools.count()  # no two prompts share a beginning


def sequence(n_tokens: int) -> Sequence:
    params = SamplingParams(max_tokens=4)
    request = Request(
        prompt=list(itertools.islice(IDS, n_tokens)), params=params, stop_ids=frozenset(), sink=lambda _: None
    )
    sampler: Any = None  # nothing is computed here
    tokenizer: Any = SimpleNamespace(drops_first_space=False)
    return Sequence(request, sampler, tokenizer, context_tokens=1000)


def step(scheduler: Scheduler) -> list[tuple[Sequence, int]]:
    """Compute a step; gives whose tokens it had, and how many."""
    packed = scheduler.next_step()
    assert packed is not None
    counts = [int(n) for n in packed.slices[:, 0]]
    for sequence, n in zip(packed.sequences, counts, strict=True):
        scheduler.advance(sequence, n)
        if not sequence.n_waiting:  # the next token of its answer
            sequence.tokens.append(0)
    assert len(packed.tokens) == sum(counts) <= STEP
    return list(zip(packed.sequences, counts, strict=True))


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler(BlockManager(1000, SIZE), STEP, Pace(math.inf), None)


def test_a_prompt_alone_has_the_whole_step(scheduler: Scheduler) -> None:
    scheduler.add(long := sequence(40))
    assert [step(scheduler), step(scheduler), step(scheduler)] == [[(long, 16)], [(long, 16)], [(long, 8)]]
    assert step(scheduler) == [(long, 1)]


def test_a_short_prompt_does_not_wait_for_a_long_one(scheduler: Scheduler) -> None:
    scheduler.add(long := sequence(100))
    assert step(scheduler) == [(long, 16)]
    middle, short = sequence(12), sequence(5)
    scheduler.add(middle)
    scheduler.add(short)
    assert step(scheduler) == [(long, 8), (short, 5), (middle, 3)]
    assert step(scheduler) == [(short, 1), (long, 8), (middle, 7)]


def test_a_long_prompt_goes_on_however_many_short_ones_come(scheduler: Scheduler) -> None:
    scheduler.add(long := sequence(100))
    n_steps = 0
    while long.n_computed < 100:
        for _ in range(4):
            scheduler.add(sequence(6))
        for each, _ in step(scheduler):
            if each is not long and each.n_waiting == 1:
                scheduler.remove(each)
        n_steps += 1
    assert n_steps == 13  # half of each


def test_prompts_of_one_length_come_in_order(scheduler: Scheduler) -> None:
    prompts = [sequence(10) for _ in range(3)]
    for each in prompts:
        scheduler.add(each)
    assert step(scheduler) == [(prompts[0], 10), (prompts[1], 6)]
    assert step(scheduler) == [(prompts[0], 1), (prompts[1], 4), (prompts[2], 10)]


def test_steps_have_fewer_tokens_deep_in_a_text() -> None:
    scheduler = Scheduler(BlockManager(1000, SIZE), 512, Pace(100), None)
    scheduler.add(long := sequence(900))
    scheduler.add(other := sequence(700))
    steps = []
    while long.n_waiting > 1:
        packed = scheduler.next_step()
        assert packed is not None
        costs = [n * (1 + first / 100) for n, first in packed.slices.tolist()]
        steps.append({each: int(n) for each, n in zip(packed.sequences, packed.slices[:, 0], strict=True)})
        for each, n in steps[-1].items():
            scheduler.advance(each, n)
        # So many of the oldest are computed however deep it is, and nothing more then.
        assert sum(costs) <= 512 or (list(steps[-1]) == [long] and steps[-1][long] <= 64)
    assert steps[0] == {long: 256, other: 256}
    assert 64 <= steps[1][long] < 256
    assert steps[-2] == {long: 64}


def test_a_model_has_a_pace_of_its_own() -> None:
    small = ModelConfig(
        dim=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, ffn_dim=64, vocab_size=512, max_seq_len=128
    )
    large = replace(small, ffn_dim=4096)
    assert 0 < pace_of(small).double_at < pace_of(large).double_at
    assert pace_of(replace(small, n_layers=20)) == pace_of(small)
