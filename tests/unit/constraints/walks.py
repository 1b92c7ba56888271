"""Random answers that a constraint allows."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from puna.constraints import Compiler, Constraint, Matcher

# Tokens with which things come to an end, so that random answers do too.
_CLOSING = (b'"', b"}", b"]", b'"}', b")", b'")', b'"]')


def allowed_by(matcher: Matcher, compiler: Compiler) -> NDArray[np.bool_]:
    """Which tokens may come next, ``[vocabulary]``."""
    return masks_of(matcher, compiler, [])[0]


def masks_of(matcher: Matcher, compiler: Compiler, guess: list[int]) -> NDArray[np.bool_]:
    """Which tokens may come next, and which after each token of a guess, ``[1 + guess, vocabulary]``."""
    masks = np.zeros((1 + len(guess), compiler.n_words), np.uint32)
    matcher.fill(masks, guess)
    if matcher.error is not None:
        raise matcher.error
    bits = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")
    return bits[:, : compiler._vocab_size].astype(bool)


@cache
def _closing(compiler: Compiler) -> list[int]:
    tokens = range(compiler._vocab_size)
    return [token for token in tokens if compiler._tokenizer.bytes_or_none(token) in _CLOSING]


def random_answer(
    compiler: Compiler, constraint: Constraint, end: int, seed: int, *, limit: int = 200
) -> list[int] | None:
    """Ids of an answer up to where it may end, `end` left out; None where that is not reached."""
    matcher, draw = compiler.matcher(constraint, [end]), np.random.default_rng(seed)
    ends = _closing(compiler)
    ids: list[int] = []
    while len(ids) < limit:
        allowed = allowed_by(matcher, compiler)
        if allowed[end] and (draw.random() < 0.5 or allowed.sum() == 1):
            return ids
        allowed[end] = False
        closing = [token for token in ends if allowed[token]]
        choices = closing if closing and draw.random() < 0.5 else np.flatnonzero(allowed)
        token = int(draw.choice(choices))
        matcher.take(token)
        ids.append(token)
        if matcher.is_over:
            return ids
    return None


def is_allowed(compiler: Compiler, constraint: Constraint, text: str, end: int) -> bool:
    """Whether a text, special tokens in it included, may be a whole answer."""
    matcher = compiler.matcher(constraint, [end])
    for token in compiler._tokenizer.encode_with_special(text):
        if matcher.is_over or matcher.permitted([token]) != [token]:
            return False
        matcher.take(token)
    return matcher.is_over or bool(allowed_by(matcher, compiler)[end])
