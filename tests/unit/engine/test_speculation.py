"""Speculation changes the number of steps and nothing else."""

from __future__ import annotations

import queue
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.tiny import save_tiny
from tests.unit.engine.callers import Caller

from puna import _native
from puna.engine.native import NativeEngine
from puna.engine.request import Event, Request, SamplingParams
from puna.engine.sequence import Sequence
from puna.engine.speculation import Confidence, Lookup, NgramIndex
from puna.errors import ConfigError
from puna.models.open import open_checkpoint
from puna.models.packed import PackedModel, pack_checkpoint
from puna.tokens import Tokenizer

Tiny = tuple[PackedModel, Tokenizer]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    checkpoint = open_checkpoint(folder)
    return pack_checkpoint(checkpoint, "int4"), Tokenizer(checkpoint.vocabulary())


@pytest.fixture(scope="module")
def plain(tiny: Tiny) -> Iterator[NativeEngine]:
    engine = NativeEngine(*tiny, n_threads=2, speculation="off")
    yield engine
    engine.close()


@pytest.fixture
def guessing(tiny: Tiny) -> Iterator[NativeEngine]:
    engine = NativeEngine(*tiny, n_threads=2, speculation="lookup")
    yield engine
    engine.close()


class Oracle:
    """Guesses the true answer, wrong from some place on; implements `Proposer`."""

    def __init__(self, whole: list[list[int]], seed: int) -> None:
        self.whole = whole
        self.draw = random.Random(seed)

    def propose(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        return [self._guess(sequence.tokens, limit) for sequence, limit in wanted]

    def forget(self, sequence: Sequence) -> None:
        pass

    def _guess(self, tokens: list[int], limit: int) -> list[int]:
        text = next((text for text in self.whole if text[: len(tokens)] == tokens), [])
        guess = text[len(tokens) : len(tokens) + self.draw.randint(0, limit)]
        if guess and self.draw.random() < 0.5:
            place = self.draw.randrange(len(guess))
            guess[place:] = [(token + 1) % 256 for token in guess[place:]]
        return guess


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.8, "seed": 3},
    {"temperature": 1.2, "seed": 4, "top_k": 30, "top_p": 0.9, "min_p": 0.01},
    {"temperature": 0.7, "seed": 5, "repetition_penalty": 1.3, "frequency_penalty": 0.2, "logprobs": 3},
    {"presence_penalty": 1.0, "logit_bias": {7: 2.0}, "logprobs": 0},
    {"temperature": 2.0, "top_p": 1.0, "seed": 6, "max_tokens": 1},
    {"max_tokens": 2},
]


def prompts() -> list[list[int]]:
    """Random ones and repetitive ones, with lengths around the edges of blocks and of steps."""
    draw = np.random.default_rng(0)
    lengths = (1, 2, 14, 15, 16, 17, 31, 32, 33, 100, 255, 257)
    period = [draw.integers(0, 256, 5 + n % 7).tolist() for n in lengths]
    return [(p * n)[:n] for p, n in zip(period, lengths, strict=True)]


def test_every_answer_is_the_one_without_guesses(plain: NativeEngine, guessing: NativeEngine) -> None:
    n_proposed = n_accepted = 0
    for options in SETTINGS:
        for prompt in prompts()[1::2]:
            expected, _ = Caller(plain, prompt, **options).finish()
            found, usage = Caller(guessing, prompt, **options).finish()
            assert found == expected, (options, len(prompt))
            assert usage.accepted_tokens <= min(usage.proposed_tokens, usage.completion_tokens)
            n_proposed += usage.proposed_tokens
            n_accepted += usage.accepted_tokens
    assert n_proposed > n_accepted > 0


def test_neighbours_change_nothing(plain: NativeEngine, guessing: NativeEngine) -> None:
    requests = [(prompt, options) for prompt in prompts()[::2] for options in SETTINGS]
    random.Random(1).shuffle(requests)
    expected = [Caller(plain, prompt, **options) for prompt, options in requests]
    found = [Caller(guessing, prompt, **options) for prompt, options in requests]
    for one, other in zip(found, expected, strict=True):
        # What was cached depends on who came first.
        assert one.finish()[0][:4] == other.finish()[0][:4]


@pytest.mark.parametrize("seed", range(4))
def test_guesses_that_are_right_in_part(plain: NativeEngine, guessing: NativeEngine, seed: int) -> None:
    options: dict[str, Any] = {**SETTINGS[2 + seed % 2], "seed": seed, "max_tokens": 70}
    texts = prompts()
    expected = [Caller(plain, prompt, **options).finish()[0] for prompt in texts]
    whole = [prompt + answer[1] for prompt, answer in zip(texts, expected, strict=True)]
    guessing._scheduler._proposer = Oracle(whole, seed)
    n_wrong = 0
    for prompt, answer in zip(texts, expected, strict=True):
        found, usage = Caller(guessing, prompt, **options).finish()
        assert found[:4] == answer[:4]
        n_wrong += usage.proposed_tokens - usage.accepted_tokens
        assert usage.accepted_tokens > 5
    assert n_wrong > 20
    together = [Caller(guessing, prompt, **options) for prompt in texts]
    assert [caller.finish()[0][:4] for caller in together] == [answer[:4] for answer in expected]


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_may_end_amid_right_guesses(plain: NativeEngine, guessing: NativeEngine, seed: int) -> None:
    prompt = prompts()[9]
    options: dict[str, Any] = {"temperature": 0.9, "seed": seed}
    text, tokens, *_ = Caller(plain, prompt, **options).finish()[0]
    guessing._scheduler._proposer = Oracle([prompt + tokens], seed)
    draw = random.Random(seed)
    for _ in range(6):
        end = draw.randrange(1, len(tokens))
        at = draw.randrange(len(text) - 2)
        for rule in ({"max_tokens": end}, {"stop_ids": [tokens[end]]}, {"stop": text[at : at + 2]}):
            expected, _ = Caller(plain, prompt, **options, **rule).finish()
            found, usage = Caller(guessing, prompt, **options, **rule).finish()
            assert found[:4] == expected[:4], rule
            assert usage.completion_tokens == expected[4][0]


def test_a_conversation_finds_its_answer_in_the_cache(plain: NativeEngine, guessing: NativeEngine) -> None:
    prompt = prompts()[8]
    for engine in (plain, guessing):
        _, tokens, *_ = Caller(engine, prompt, max_tokens=64).finish()[0]
        if engine is plain:
            guessing._scheduler._proposer = Oracle([prompt + tokens], 0)
            expected = tokens
    assert tokens == expected
    for end in range(1, 64, 5):
        again = [*prompt, *tokens[:end], 5]
        # Blocks that held rejected guesses hold the true tokens now.
        assert Caller(plain, again, logprobs=5).finish()[0] == Caller(guessing, again, logprobs=5).finish()[0]


def test_one_request_that_is_cancelled_leaves_its_neighbours_alone(
    plain: NativeEngine, guessing: NativeEngine
) -> None:
    prompt = prompts()[10]
    expected, _ = Caller(plain, prompt, max_tokens=200).finish()
    free = guessing._scheduler.blocks.n_free
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    doomed = Request(
        prompt=prompt,
        params=SamplingParams(temperature=0, max_tokens=700, ignore_eos=True),
        stop_ids=frozenset(),
        sink=events.put,
    )
    guessing.submit(doomed)
    neighbour = Caller(guessing, prompt, max_tokens=200)
    events.get(timeout=60)
    guessing.cancel(doomed)
    assert neighbour.finish()[0][:4] == expected[:4]
    while not events.get(timeout=60).is_last:
        pass
    Caller(guessing, [1]).finish()
    assert guessing._scheduler.blocks.n_free == free


def test_an_index_finds_the_latest_place_of_the_longest_match() -> None:
    draw = random.Random(0)
    for _ in range(200):
        text = [draw.randrange(3) for _ in range(draw.randrange(1, 60))]
        index, read = NgramIndex(), 0
        while read < len(text):
            read = min(len(text), read + draw.randrange(1, 5))
            limit = draw.randrange(1, 8)
            assert index.propose(text[:read], limit) == by_search(text[:read], limit)


def by_search(tokens: list[int], limit: int) -> list[int]:
    for n in (4, 3, 2):
        for start in range(len(tokens) - n - 1, -1, -1):
            if tokens[start : start + n] == tokens[-n:]:
                return tokens[start + n : start + n + limit]
    return []


def test_guesses_grow_where_they_are_right_and_end_where_they_are_wrong() -> None:
    confidence = Confidence()
    first = confidence.length
    assert first > 0
    for _ in range(20):
        confidence.learn(confidence.length, confidence.length)
    assert confidence.length > 15
    wrong = 0
    while confidence.length > 0:
        confidence.learn(confidence.length, 0)
        wrong += 1
    assert wrong < 20
    for _ in range(100):
        confidence.learn(0, 0)
    assert 0 < confidence.length <= first


def test_lookup_lets_go_of_what_is_over(guessing: NativeEngine) -> None:
    for prompt in prompts():
        Caller(guessing, prompt).finish()
    Caller(guessing, [1], max_tokens=1).finish()
    lookup = guessing._scheduler._proposer
    assert isinstance(lookup, Lookup)
    assert not lookup._indexes


def test_a_speculation_that_there_is_not(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"speculation 'lokup' is unknown; .*lookup"):
        NativeEngine(*tiny, speculation="lokup")


def test_rows_of_a_sampler_follow_each_other(plain: NativeEngine) -> None:
    def run(rows: list[int], samplers: list[_native.Sampler]) -> list[list[_native.Sample]]:
        return plain._runner.sample(
            np.array([1, 2, 3], np.int32),
            np.array([[3, 0]], np.int64),
            np.array([[0]], np.int32),
            np.array(rows, np.int64),
            samplers,
        )

    def sampler() -> _native.Sampler:
        return _native.Sampler(
            temperature=0,
            top_k=0,
            top_p=1,
            min_p=0,
            repetition_penalty=1,
            frequency_penalty=0,
            presence_penalty=0,
            seed=0,
            top_logprobs=-1,
            logit_bias=[],
        )

    one, other = sampler(), sampler()
    assert [len(samples) for samples in run([0, 2], [one, other])] == [1, 1]
    for rows, samplers in (([0, 2], [one, one]), ([1, 0], [one, one]), ([0, 1, 2], [one, other, one])):
        with pytest.raises(_native.NativeError, match="rows of one sampler must follow each other"):
            run(rows, samplers)
