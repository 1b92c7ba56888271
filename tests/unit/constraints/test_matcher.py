"""What a matcher says without a mask is what its masks say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tests.unit.constraints.bombs import END
from tests.unit.constraints.walks import allowed_by, masks_of

import puna.constraints.compiler as compiler_module
import puna.constraints.matcher as matcher_module
from puna.constraints import Choices, Compiler, Constraint, JsonSchema, Lark, Regex
from puna.errors import ConstraintError
from puna.tokens import Tokenizer

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "colour": {"enum": ["red", "blue"]}},
    "required": ["name", "colour"],
    "additionalProperties": False,
}
# Each with an answer; in most of them something is forced, in its middle too.
ANSWERS: list[tuple[Constraint, str]] = [
    (Choices([" thermodynamics"]), " thermodynamics"),
    (Choices(["llama", "alpaca", "vicuna and guanaco"]), "vicuna and guanaco"),
    (JsonSchema(PERSON), '{"name": "Ann Lee", "colour": "blue"}'),
    (JsonSchema(), '{"a": [1, "two"]}'),
    (Regex(r"The answer is [0-9]{2}\.( It is known\.)?"), "The answer is 42. It is known."),
    (Lark('start: "(" start ")" | WORD " theory"\nWORD: /[a-z]+/'), "((wool theory))"),
]


@pytest.fixture(scope="module")
def compiler(smollm: Tokenizer) -> Compiler:
    return Compiler(smollm, smollm.vocab_size)


def answer_to(compiler: Compiler, constraint: Constraint, text: str) -> list[int]:
    """The tokens of a text that masks allow, the longest first."""
    tokenizer, matcher = compiler._tokenizer, compiler.matcher(constraint, [END])
    left, ids = text.encode(), []
    while left:
        allowed = np.flatnonzero(allowed_by(matcher, compiler)).tolist()
        found = {token: tokenizer.bytes_or_none(token) or b"" for token in allowed if token != END}
        token = max((t for t in found if found[t] and left.startswith(found[t])), key=lambda t: len(found[t]))
        left = left[len(found[token]) :]
        matcher.take(token)
        ids.append(token)
    return ids


@pytest.mark.parametrize(("constraint", "text"), ANSWERS, ids=[text for _, text in ANSWERS])
def test_a_token_is_allowed_where_its_mask_has_it(
    constraint: Constraint, text: str, compiler: Compiler, smollm: Tokenizer
) -> None:
    matcher = compiler.matcher(constraint, [END])
    for token in answer_to(compiler, constraint, text):
        mask = allowed_by(matcher, compiler)
        allowed = [t for t in range(smollm.vocab_size) if matcher.allows([t])]
        assert allowed == np.flatnonzero(mask).tolist()
        matcher.take(token)


@pytest.mark.parametrize(("constraint", "text"), ANSWERS, ids=[text for _, text in ANSWERS])
def test_guesses_are_permitted_as_far_as_their_masks_have_them(
    constraint: Constraint, text: str, compiler: Compiler, smollm: Tokenizer
) -> None:
    matcher, answer = compiler.matcher(constraint, [END]), answer_to(compiler, constraint, text)
    for place in range(len(answer) + 1):
        right, left = answer[place:], smollm.decode(answer[place:])
        letters = [smollm.encode(letter)[0] for letter in left]
        wrong = [[*right[:n], 500 + n] for n in range(3)]
        for guess in [right, [*right, END], letters, smollm.encode(left), *wrong]:
            masks, n = masks_of(matcher, compiler, guess), 0
            while n < len(guess) and masks[n, guess[n]]:
                n += 1
            assert matcher.permitted(guess) == [each for each in guess[:n] if each != END]
            if guess and END not in guess:
                assert matcher.allows(guess) == (n == len(guess))
            assert np.array_equal(allowed_by(matcher, compiler), masks[0])  # as it was
        for token in right[:1]:
            matcher.take(token)


def test_masks_of_what_is_forced_have_nothing_else(compiler: Compiler) -> None:
    n_forced = 0
    for constraint, text in ANSWERS:
        matcher = compiler.matcher(constraint, [END])
        for token in answer_to(compiler, constraint, text):
            forced = matcher.forced(99)
            for mask, only in zip(masks_of(matcher, compiler, forced), forced, strict=False):
                assert np.flatnonzero(mask).tolist() == [only]
            n_forced += len(forced)
            matcher.take(token)
    assert n_forced > 20


def pretend(masks_ms: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let masks take so long by the clock, one after the other."""
    times = np.cumsum([[0, ms] for ms in masks_ms]).tolist()
    for module in (compiler_module, matcher_module):
        monkeypatch.setattr(module, "thread_time", lambda: times.pop(0) / 1000)


@pytest.mark.parametrize(
    ("masks_ms", "n_right"),
    [
        ((90, 90, 90), 2),
        ((160,), 0),
        ((149, 20, 20, 20, 140, 50, 50, 50, 65), 8),  # what is fast makes up for what is slow
        ((50,) * 30, 30),
        ((5, 140, 1) * 10, 30),
    ],
    ids=str,
)
def test_masks_that_take_too_long_end_the_answer(
    masks_ms: Sequence[int], n_right: int, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    matcher, n = compiler.matcher(Regex("(a|b)+"), [END]), 0
    pretend(masks_ms, monkeypatch)
    while n < len(masks_ms) and matcher.error is None:
        matcher.fill(np.zeros((1, compiler.n_words), np.uint32), [])
        n += matcher.error is None
    assert n == n_right
    if n < len(masks_ms):
        assert "takes too long to find what may come next; make it simpler" in str(matcher.error)


def test_each_token_of_a_guess_has_its_time(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    constraint = Choices([" thermodynamics"])
    matcher = compiler.matcher(constraint, [END])
    guess = matcher.forced(9)
    pretend((len(guess) * 50 + 140, len(guess) * 50 + 70), monkeypatch)
    masks_of(matcher, compiler, guess)
    with pytest.raises(ConstraintError, match="too long"):
        masks_of(matcher, compiler, guess)


def test_a_constraint_whose_first_mask_takes_too_long_is_refused(
    smollm: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = Compiler(smollm, smollm.vocab_size)
    pretend((151, 149), monkeypatch)
    with pytest.raises(ConstraintError, match="regular expression cannot be used: it takes too long to find"):
        compiler.prepare(Regex("(a|b)+"))
    compiler.prepare(Regex("(a|b)+"))
