"""Constrained answers: the same tokens however they are computed, and an end where the constraint has one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest
import regex
from tests.tiny import save_tiny
from tests.unit.engine.callers import Caller

from puna.constraints import Choices, Constraint, JsonSchema, Lark, Matcher, Regex
from puna.engine import masks
from puna.engine.native import NativeEngine
from puna.engine.request import SamplingParams
from puna.errors import ConfigError, ConstraintError
from puna.models.open import open_checkpoint
from puna.models.packed import PackedModel, pack_checkpoint
from puna.tokens import Tokenizer

Tiny = tuple[PackedModel, Tokenizer]
END = 257
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "size": {"type": "integer", "minimum": 0, "maximum": 999},
        "tags": {"type": "array", "items": {"enum": ["wool", "woolly", "hum"]}, "maxItems": 3},
    },
    "required": ["name", "size", "tags"],
    "additionalProperties": False,
}
CONSTRAINTS: list[Constraint] = [
    JsonSchema(SCHEMA),
    JsonSchema(),
    JsonSchema({"type": "array", "items": {"type": "number"}}),  # numbers that would not end
    Regex(r"[a-z]{4,20}( [0-9]{2,9})*"),
    Choices(["llama", "alpaca", "vicuna and guanaco"]),
    Lark('start: "(" start ")" | WORD\nWORD: /[a-z]+/'),
]


def token(letter: str) -> int:
    """The id of a printable letter in the tiny model's vocabulary."""
    return ord(letter) - ord("!")


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.9, "seed": 3, "logprobs": 2},
    {"temperature": 1.3, "seed": 4, "top_k": 30, "top_p": 0.9, "repetition_penalty": 1.2},
    {"logit_bias": {token("}"): 60.0, token('"'): -30.0}, "presence_penalty": 1.0, "logprobs": 0},
    {"stop": ["oo", '": '], "temperature": 1.0, "seed": 5},
    {"max_tokens": 3},
]
PROMPTS = [[1, 2, 3], list(b"wool wool wool hum hum hum "), list(range(60, 160)) * 3]


def load(tmp_path_factory: pytest.TempPathFactory, name: str, **changes: Any) -> Tiny:
    folder = tmp_path_factory.mktemp(name)
    save_tiny(folder, **changes)
    checkpoint = open_checkpoint(folder)
    return pack_checkpoint(checkpoint, "int4"), Tokenizer(checkpoint.vocabulary())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return load(tmp_path_factory, "tiny")


@pytest.fixture(scope="module")
def plain(tiny: Tiny) -> Iterator[NativeEngine]:
    engine = NativeEngine(*tiny, n_threads=1, speculation="off")
    yield engine
    engine.close()


def ask(engine: NativeEngine, prompt: list[int], constraint: Constraint, **options: Any) -> Caller:
    return Caller(engine, prompt, constraint=constraint, ignore_eos=False, **{"max_tokens": 90, **options})


def requests() -> list[tuple[list[int], Constraint, dict[str, Any]]]:
    return [(p, c, s) for p in PROMPTS for c in CONSTRAINTS for s in SETTINGS]


@pytest.fixture(scope="module")
def expected(plain: NativeEngine) -> list[list[Any]]:
    """Answers one at a time, on one thread, without guesses, and with a mask for every token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_takes_likeliest", lambda params: False)
        return [ask(plain, prompt, constraint, **s).finish()[0][:4] for prompt, constraint, s in requests()]


def test_a_mask_is_made_only_where_it_is_needed(plain: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    fill = Matcher.fill
    monkeypatch.setattr(Matcher, "fill", lambda *given: made.append(len(given[1])) or fill(*given))  # type: ignore[func-returns-value]
    prompt, constraint = PROMPTS[1], Regex(r"[!-~]{200,}")  # what a byte at a time is most of
    (_, answer, *_), _ = ask(plain, prompt, constraint, max_tokens=60).finish()
    n_masks = sum(made)
    likeliest = plain.logits(prompt + answer[:-1]).argmax(-1)[-len(answer) :]
    assert 0 < n_masks == int((likeliest != answer).sum()) < 60
    ask(plain, prompt, constraint, max_tokens=60, temperature=0.5).finish()
    assert sum(made) == n_masks + 60


@pytest.mark.parametrize(
    ("speculation", "n_threads", "at_once"),
    [("off", 3, 90), ("lookup", 1, 1), ("lookup", 2, 4), ("lookup", 2, 90)],
)
def test_answers_do_not_depend_on_guesses_threads_and_neighbours(
    tiny: Tiny, expected: list[list[Any]], speculation: str, n_threads: int, at_once: int
) -> None:
    engine = NativeEngine(*tiny, n_threads=n_threads, speculation=speculation)
    wanted = list(enumerate(requests()))
    random.Random(n_threads).shuffle(wanted)
    free = Caller(engine, PROMPTS[1], max_tokens=300)  # one that anything is allowed to
    n_accepted = 0
    for start in range(0, len(wanted), at_once):
        group = wanted[start : start + at_once]
        callers = [ask(engine, prompt, constraint, **settings) for _, (prompt, constraint, settings) in group]
        for (i, request), caller in zip(group, callers, strict=True):
            answer, usage = caller.finish()
            assert answer[:4] == expected[i], request
            n_accepted += usage.accepted_tokens
    assert (n_accepted > 100) == (speculation == "lookup" and at_once < 16)
    unconstrained = NativeEngine(*tiny, n_threads=1, speculation="off")
    assert free.finish()[0][:4] == Caller(unconstrained, PROMPTS[1], max_tokens=300).finish()[0][:4]
    engine.close()
    unconstrained.close()


def test_a_draft_model_changes_nothing(
    tiny: Tiny, expected: list[list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    draft, _ = load(tmp_path_factory, "draft", seed=1, num_hidden_layers=1)
    engine = NativeEngine(*tiny, n_threads=2, draft=draft)
    callers = [ask(engine, prompt, constraint, **s) for prompt, constraint, s in requests()]
    for caller, answer in zip(callers, expected, strict=True):
        assert caller.finish()[0][:4] == answer
    engine.close()


def test_whole_answers_suit_their_constraints(expected: list[list[Any]]) -> None:
    ends = {"stop": 0, "length": 0}
    for (_, constraint, settings), (text, _, _, reason) in zip(requests(), expected, strict=True):
        ends[reason] += 1
        if reason == "length" or "stop" in settings:
            continue
        if isinstance(constraint, JsonSchema):
            jsonschema.validate(json.loads(text), constraint.values)
        elif isinstance(constraint, Regex):
            assert regex.fullmatch(constraint.pattern, text)
        elif isinstance(constraint, Choices):
            assert text in constraint.texts
        else:
            depth = text.count("(")
            assert regex.fullmatch(r"[a-z]+", text.strip("()"))
            assert text == "(" * depth + text.strip("()") + ")" * depth
    assert min(ends.values()) > 10


def test_logprobs_are_those_over_what_the_constraint_allows(plain: NativeEngine) -> None:
    prompt, words = [5, 6, 7], ["ab", "abc", "b"]
    (text, tokens, logprobs, _, _), usage = ask(plain, prompt, Choices(words), logprobs=5).finish()
    assert usage.completion_tokens == len(tokens) + (text == "ab")
    for i, entry in enumerate(logprobs):
        said = text[:i]
        nexts = {word[i] for word in words if word.startswith(said) and len(word) > i}
        allowed = sorted({token(letter) for letter in nexts} | ({END} if said in words else set()))
        x = np.asarray(plain.logits(prompt + tokens[:i])[-1], np.float64)[allowed]
        logs = dict(zip(allowed, (x - x.max() - np.log(np.exp(x - x.max()).sum())).tolist(), strict=True))
        assert entry.logprob == pytest.approx(logs[entry.token], abs=1e-4)
        assert {other for other, _ in entry.top} == set(allowed)


def test_the_end_comes_where_the_constraint_has_it(plain: NativeEngine) -> None:
    # The end is what the model would like best, and must wait.
    options: dict[str, Any] = {"logit_bias": {END: 100.0}}
    answer, usage = ask(plain, [1], Regex("[a-z]{5}[0-9]*"), **options).finish()
    assert len(answer[0]) == 5
    assert answer[3] == "stop"
    assert usage.completion_tokens == 6
    # Nothing can follow: no token is spent on the end.
    answer, usage = ask(plain, [1], Regex("[a-z]{5}"), **options).finish()
    assert (len(answer[0]), answer[3], usage.completion_tokens) == (5, "stop", 5)
    # The last token that is allowed is also the last of the constraint.
    answer, _ = ask(plain, [1], Regex("[a-z]{5}"), max_tokens=5).finish()
    assert answer[3] == "stop"
    answer, _ = ask(plain, [1], Regex("[a-z]{5}"), max_tokens=4).finish()
    assert answer[3] == "length"
    answer, _ = ask(plain, [1], Regex("[a-z]{0}"), max_tokens=4).finish()
    assert (answer[0], answer[3]) == ("", "stop")


def test_a_prompt_in_the_cache_changes_nothing(tiny: Tiny) -> None:
    engine = NativeEngine(*tiny, n_threads=2)
    prompt = PROMPTS[2]
    first, _ = ask(engine, prompt, CONSTRAINTS[0], temperature=1.0, seed=8).finish()
    again, usage = ask(engine, prompt, CONSTRAINTS[0], temperature=1.0, seed=8).finish()
    assert usage.cached_tokens > 200
    assert again[:4] == first[:4]
    engine.close()


def test_a_cancelled_answer_leaves_the_others_alone(tiny: Tiny, plain: NativeEngine) -> None:
    engine = NativeEngine(*tiny, n_threads=2)
    endless = Regex("[a-z]*")
    wanted, _ = ask(plain, [9], CONSTRAINTS[0]).finish()
    doomed = ask(engine, [9], endless, max_tokens=900, logit_bias={END: -100.0})
    other = ask(engine, [9], CONSTRAINTS[0])
    doomed.events.get(timeout=60)
    engine.cancel(doomed.request)
    assert doomed.finish()[0][3] == "cancelled"
    assert other.finish()[0][:4] == wanted[:4]
    engine.close()


def test_a_constraint_that_runs_into_a_limit_ends_its_request_only(tiny: Tiny, plain: NativeEngine) -> None:
    engine = NativeEngine(*tiny, n_threads=2)
    free = engine.free_cache_tokens
    wanted, _ = ask(plain, [9], CONSTRAINTS[0]).finish()
    hostile = ask(engine, [9], Regex(r"(\w{1,200}\s\p{L}{1,300}){1,300}"), temperature=2.0, max_tokens=800)
    other = ask(engine, [9], CONSTRAINTS[0])
    error = hostile.error()
    assert isinstance(error, ConstraintError)
    assert "make it simpler" in str(error)
    assert other.finish()[0][:4] == wanted[:4]
    ask(engine, [9], CONSTRAINTS[0]).finish()
    assert engine.free_cache_tokens == free
    engine.close()


def test_a_bad_constraint_is_refused_before_anything_runs(plain: NativeEngine) -> None:
    with pytest.raises(ConstraintError, match="at #: `not`"):
        ask(plain, [1], JsonSchema({"not": {}}))
    with pytest.raises(ConstraintError, match="at #: `not`"):
        plain.prepare(JsonSchema({"not": {}}))
    with pytest.raises(ConfigError, match="`ignore_eos` goes on behind the end"):
        SamplingParams(constraint=JsonSchema(), ignore_eos=True)
