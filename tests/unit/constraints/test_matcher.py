"""What a matcher says without a mask is what its masks say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.constraints.bombs import END
from tests.unit.constraints.walks import allowed_by

from puna.constraints import Choices, Compiler, Constraint, JsonSchema, Lark, Matcher, Regex
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


def masks_of(compiler: Compiler, matcher: Matcher, guess: list[int]) -> NDArray[np.bool_]:
    masks = np.zeros((1 + len(guess), compiler.n_words), np.uint32)
    matcher.fill(masks, guess)
    return np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little").astype(bool)


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
    for place, token in enumerate([*answer, END]):
        right, left = answer[place:], smollm.decode(answer[place:])
        letters = [smollm.encode(letter)[0] for letter in left]
        wrong = [[*right[:n], 500 + n] for n in range(3)]
        for guess in [right, [*right, END], letters, smollm.encode(left), *wrong]:
            masks, n = masks_of(compiler, matcher, guess), 0
            while n < len(guess) and masks[n, guess[n]]:
                n += 1
            assert matcher.permitted(guess) == [each for each in guess[:n] if each != END]
            if guess and END not in guess:
                assert matcher.allows(guess) == (n == len(guess))
            assert np.array_equal(masks_of(compiler, matcher, []), masks[:1])  # as it was
        if token != END and matcher.forced(99):
            masks = masks_of(compiler, matcher, forced := matcher.forced(99))
            assert masks[: len(forced)].sum() == len(forced)
            assert masks[range(len(forced)), forced].all()
        if not matcher.is_over:
            matcher.take(token)
