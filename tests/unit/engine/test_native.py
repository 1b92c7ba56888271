"""The native engine's loop on a tiny random model: many requests at once, each as if it were alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.tiny import add_parts, save_tiny

from puna import _native
from puna.engine.native import NativeEngine, default_threads
from puna.engine.request import Event, Request, SamplingParams
from puna.errors import CapacityError, ConfigError, EngineError
from puna.models.open import open_checkpoint
from puna.models.packed import PackedModel, pack_checkpoint
from puna.nn.checkpoint import load
from puna.nn.fake_quantized import fake_quantize
from puna.nn.packed import ModelCheckpoint
from puna.tokens import Tokenizer

EOS = 257


@pytest.fixture
def int8_engine(tiny: tuple[PackedModel, Tokenizer]) -> Iterator[NativeEngine]:
    engine = NativeEngine(*tiny, n_threads=2, cache="int8")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> tuple[PackedModel, Tokenizer]:
    folder = tmp_path_factory.mktemp("rotated")
    save_tiny(folder)
    model = add_parts(load(str(folder)))
    fake_quantize(model)
    return pack_checkpoint(ModelCheckpoint(model)), Tokenizer(open_checkpoint(folder).vocabulary())


@pytest.fixture
def rotated_engine(rotated: tuple[PackedModel, Tokenizer]) -> Iterator[NativeEngine]:
    engine = NativeEngine(*rotated, n_threads=2)
    yield engine
    engine.close()


class Caller:
    """Submits a request and gathers its events."""

    def __init__(self, engine: NativeEngine, prompt: list[int], **options: Any) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        settings = {"temperature": 0.0, "max_tokens": 20, "ignore_eos": True, **options}
        self.request = Request(
            prompt=prompt,
            params=SamplingParams(**settings),
            stop_ids=frozenset({EOS}),
            sink=self.events.put,
        )
        engine.submit(self.request)

    def finish(self) -> tuple[list[int], Event]:
        tokens: list[int] = []
        while True:
            event = self.events.get(timeout=60)
            tokens += event.tokens
            if event.is_last:
                return tokens, event


def prompt(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 256, n).tolist()


def test_greedy_tokens_are_the_argmax_of_the_logits(engine: NativeEngine) -> None:
    text = prompt(40)
    tokens, last = Caller(engine, text).finish()
    logits = engine.logits(text + tokens)
    assert logits[39:-1].argmax(-1).tolist() == tokens
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (40, 20)


@pytest.mark.parametrize("kind", ["engine", "int8_engine", "rotated_engine"])
def test_neighbours_chunks_threads_and_cache_hits_change_nothing(
    kind: str, request: pytest.FixtureRequest
) -> None:
    engine: NativeEngine = request.getfixturevalue(kind)
    prompts = [prompt(n, seed=n) for n in (1, 15, 16, 17, 100, 300, 700)]
    options = {"temperature": 0.9, "seed": 5, "top_p": 0.95, "repetition_penalty": 1.1}
    alone = [Caller(engine, p, **options).finish()[0] for p in prompts]
    assert len({tuple(tokens) for tokens in alone}) == len(prompts)
    together = [Caller(engine, p, **options) for p in prompts * 2]
    crowded = [caller.finish() for caller in together]
    assert [tokens for tokens, _ in crowded] == alone * 2
    cached = [last.usage.cached_tokens for _, last in crowded if last.usage is not None]
    assert cached[:7] == [0, 0, 0, 16, 96, 288, 688], "every full block but the one with the last token"
    model = request.getfixturevalue("rotated" if kind == "rotated_engine" else "tiny")
    with_one_thread = NativeEngine(*model, n_threads=1, cache=engine.cache)
    assert [Caller(with_one_thread, p, **options).finish()[0] for p in prompts] == alone
    with_one_thread.close()


def test_a_conversation_finds_its_own_answer_in_the_cache(engine: NativeEngine) -> None:
    text = prompt(30)
    answer, _ = Caller(engine, text).finish()
    _, last = Caller(engine, [*text, *answer, *prompt(5)]).finish()
    assert last.usage is not None
    # 30 + 20 tokens, of which the last was never put through the model: 48 in whole blocks.
    assert last.usage.cached_tokens == 48


def test_more_requests_than_the_cache_holds_take_turns(tiny: tuple[PackedModel, Tokenizer]) -> None:
    engine = NativeEngine(*tiny, context_tokens=128, cache_tokens=128)
    callers = [Caller(engine, prompt(90, seed=i)) for i in range(5)]
    assert all(len(caller.finish()[0]) == 20 for caller in callers)
    engine.close()


def test_stop_tokens_and_stop_texts(engine: NativeEngine) -> None:
    text = prompt(40)
    tokens, _ = Caller(engine, text).finish()
    shorter, last = Caller(engine, text, stop_ids=[tokens[5]]).finish()
    assert shorter == tokens[: tokens.index(tokens[5])]
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens == len(shorter) + 1


def test_the_models_own_stop_token_ends_unless_ignored(engine: NativeEngine) -> None:
    bias = {EOS: 100.0}
    tokens, last = Caller(engine, prompt(5), logit_bias=bias, ignore_eos=False).finish()
    assert (tokens, last.finish_reason, last.stop_logprob) == ([], "stop", None)
    _, last = Caller(engine, prompt(5), logit_bias=bias, ignore_eos=False, logprobs=1).finish()
    assert last.logprobs == ()
    assert last.stop_logprob is not None
    assert (last.stop_logprob.token, len(last.stop_logprob.top)) == (EOS, 1)
    tokens, last = Caller(engine, prompt(5), logit_bias=bias, max_tokens=3).finish()
    assert (tokens, last.finish_reason) == ([EOS] * 3, "length")


def test_logprobs_are_the_models_own(engine: NativeEngine) -> None:
    text = prompt(20)
    events = Caller(engine, text, logprobs=3, temperature=0.8, seed=1, presence_penalty=1.5, max_tokens=8)
    gathered: list[Event] = []
    while not gathered or not gathered[-1].is_last:
        gathered.append(events.events.get(timeout=60))
    logprobs = [item for event in gathered for item in event.logprobs]
    tokens = [token for event in gathered for token in event.tokens]
    logits = np.asarray(engine.logits(text + tokens), np.float64)[19:-1]
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for row, token, item in zip(expected, tokens, logprobs, strict=True):
        assert item.token == token
        assert item.logprob == pytest.approx(row[token], abs=1e-5)
        best = np.argsort(-row)[:3]
        assert [t for t, _ in item.top] == best.tolist()
        assert [p for _, p in item.top] == pytest.approx(row[best].tolist(), abs=1e-5)


def test_seeds(engine: NativeEngine) -> None:
    def answer(**options: Any) -> list[int]:
        return Caller(engine, prompt(10), temperature=1.5, top_p=1.0, **options).finish()[0]

    assert answer(seed=1) == answer(seed=1) != answer(seed=2)
    first = Caller(engine, prompt(10), temperature=1.5)
    assert answer(seed=first.request.seed, logprobs=2) != []
    assert first.request.seed != Caller(engine, prompt(10)).request.seed


def test_cancel_ends_a_request_and_frees_its_blocks(engine: NativeEngine) -> None:
    free = engine._scheduler.blocks.n_free
    caller = Caller(engine, prompt(10), max_tokens=900)
    caller.events.get(timeout=60)
    engine.cancel(caller.request)
    tokens, last = caller.finish()
    assert last.finish_reason == "cancelled"
    assert len(tokens) < 899
    engine.cancel(caller.request)  # a finished request: no effect
    assert Caller(engine, prompt(3)).finish()[1].finish_reason == "length"
    assert engine._scheduler.blocks.n_free == free


def test_what_does_not_fit_is_refused_with_both_numbers(tiny: tuple[PackedModel, Tokenizer]) -> None:
    engine = NativeEngine(*tiny, context_tokens=64, cache_tokens=32)
    with pytest.raises(CapacityError, match=r"64 tokens and at most 63 fit the context of 64.*up to 1024"):
        Caller(engine, prompt(64))
    whole = NativeEngine(*tiny, context_tokens=1024)
    with pytest.raises(CapacityError, match=r"1023 fit the context of 1024; shorten it$"):
        Caller(whole, prompt(1024))
    whole.close()
    with pytest.raises(CapacityError, match="may take 60 tokens and the cache holds 32"):
        Caller(engine, prompt(40))
    with pytest.raises(CapacityError, match="text has 40 tokens and the cache holds 32; shorten it"):
        engine.embed(prompt(40))
    with pytest.raises(ConfigError, match="prompt is empty"):
        Caller(engine, [])
    with pytest.raises(ConfigError, match="token 261 is not in the vocabulary of 260"):
        Caller(engine, prompt(5), logit_bias={7: 1.0, 261: 1.0})
    with pytest.raises(ConfigError, match="token 260 is not in the vocabulary of 260"):
        Caller(engine, [1, 260])
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        Caller(engine, prompt(3))


def test_settings_of_the_engine_are_checked(tiny: tuple[PackedModel, Tokenizer]) -> None:
    with pytest.raises(ConfigError, match="`context` must be 2 to 1024 tokens for this model, got 1025"):
        NativeEngine(*tiny, context_tokens=1025)
    with pytest.raises(ConfigError, match="`threads` must be 1 to 1024, got 0"):
        NativeEngine(*tiny, n_threads=0)
    with pytest.raises(ConfigError, match=r"cache 'f8' is unknown; known: auto, f16, f32, int8"):
        NativeEngine(*tiny, cache="f8")
    assert default_threads() >= 1


def test_an_int8_cache_is_smaller_and_rounds(engine: NativeEngine, int8_engine: NativeEngine) -> None:
    assert (engine.cache, int8_engine.cache) == ("f16", "int8")
    # Heads of 12 numbers, padded to 16 for values: 3 lines of keys and one of scales, 4 of values and one.
    assert int8_engine.cache_bytes_per_token == 2 * 2 * 64 * (3 + 1 + 4 + 1) // 16
    text = prompt(300)
    plain, rounded = engine.logits(text), int8_engine.logits(text)
    assert 0 < np.abs(plain - rounded).mean() < 0.05 * np.abs(plain).mean()
    assert np.array_equal(rounded, int8_engine.logits(text))


def test_a_sink_that_fails_takes_down_only_its_own_request(engine: NativeEngine) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("reader is gone")

    request = Request(
        prompt=prompt(5), params=SamplingParams(max_tokens=5), stop_ids=frozenset(), sink=broken
    )
    engine.submit(request)
    assert len(Caller(engine, prompt(5)).finish()[0]) == 20


def test_numbers_that_are_not_finite_are_an_error(tiny: tuple[PackedModel, Tokenizer]) -> None:
    model, tokenizer = tiny
    broken = {**model.norms, "model.norm.weight": np.full(48, np.nan, np.float32)}
    engine = NativeEngine(PackedModel(model.config, model.matrices, broken), tokenizer)
    _, last = Caller(engine, prompt(5)).finish()
    assert isinstance(last.error, EngineError)
    assert "not finite" in str(last.error)
    engine.close()


def test_closing_ends_what_runs(tiny: tuple[PackedModel, Tokenizer]) -> None:
    engine = NativeEngine(*tiny)
    callers = [Caller(engine, prompt(10, seed=i), max_tokens=900) for i in range(3)]
    engine.close()
    engine.close()
    assert [caller.finish()[1].finish_reason for caller in callers] == ["cancelled"] * 3


def test_many_threads_submit_at_once(engine: NativeEngine) -> None:
    expected = Caller(engine, prompt(33)).finish()[0]
    answers: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(Caller(engine, prompt(33)).finish()[0]))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 12


def test_batches_that_would_leave_the_cache_are_refused(engine: NativeEngine) -> None:
    def run(tokens: list[int], slices: list[list[int]], blocks: list[list[int]], rows: list[int]) -> None:
        engine._runner.logits(
            np.array(tokens, np.int32),
            np.array(slices, np.int64).reshape(-1, 2),
            np.array(blocks, np.int32),
            np.array(rows, np.int64),
        )

    for message, arguments in {
        "there is no cache block 99999": ([1], [[1, 0]], [[99999]], [0]),
        "there is no cache block -1": ([1], [[1, 0]], [[-1]], [0]),
        "17 tokens need 2 cache blocks, got 1": ([1], [[1, 16]], [[0]], [0]),
        "token 260 is not in the vocabulary": ([260], [[1, 0]], [[0]], [0]),
        "output rows must ascend from 0 to 0, got 1": ([1], [[1, 0]], [[0]], [1]),
        "slices have 2 tokens, got 1": ([1], [[2, 0]], [[0]], [0]),
        "beyond the model's context of 1024": ([1], [[1, 2**40]], [[0]], [0]),
        "a slice needs at least 1 token": ([1], [[-1, 0]], [[0]], [0]),
    }.items():
        with pytest.raises(_native.NativeError, match=message):
            run(*arguments)
