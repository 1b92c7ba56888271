"""From constraints to matchers for one vocabulary, within bounds on time and memory.

Constraints come from strangers. What bounds them: the size of their text, llguidance's own limits on the work
of compiling and of a step, the time that masks take (`matcher.py`), and how many compiled ones are kept.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cached_property
from time import thread_time
from typing import TYPE_CHECKING

from puna.constraints.forms import Constraint, JsonSchema, Lark
from puna.constraints.grammar import grammar_of, refusal
from puna.constraints.json_ends import JsonEnds, JsonVocabulary
from puna.constraints.kept import Kept, Key
from puna.constraints.matcher import MAX_DELAY_S, MAX_MASK_S, Matcher
from puna.errors import ConstraintError
from puna.tokens import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

__all__ = ["Compiler"]


class Compiler:
    """Compiles constraints for one vocabulary and keeps the last ones. Safe to use from several threads.

    Attributes:
        n_words: words of a mask.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        """Use a vocabulary; it is looked at when the first constraint is compiled.

        Args:
            tokenizer: what each token stands for.
            vocab_size: tokens that the model knows; those without a text are never allowed.
        """
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self.n_words = (vocab_size + 1 + 31) // 32  # one bit more says that the answer may end
        self._kept = Kept()
        self._making = threading.Lock()

    def prepare(self, constraint: Constraint, owner: str = "") -> None:
        """Compile a constraint, which may take up to seconds, so that `matcher` is quick.

        Args:
            constraint: what answers may be.
            owner: whose it is: others do not notice that it is kept. Default: everybody's.

        Raises:
            ConstraintError: it cannot be compiled.
        """
        self._compiled(constraint, owner)

    def matcher(self, constraint: Constraint, stop_ids: Iterable[int], owner: str = "") -> Matcher:
        """What follows one answer.

        Args:
            constraint: what the answer may be.
            stop_ids: tokens that end an answer.
            owner: as of `prepare`.

        Raises:
            ConstraintError: the constraint cannot be compiled.
        """
        key, compiled = self._compiled(constraint, owner)
        within = [token for token in stop_ids if token < self._vocab_size]
        ends = JsonEnds(self._json_vocabulary) if isinstance(constraint, JsonSchema) else None
        return Matcher(compiled.deep_copy(), self._vocab_size, within, lambda: self._kept.forget(key), ends)

    def _compiled(self, constraint: Constraint, owner: str) -> tuple[Key, LLMatcher]:
        key = owner, grammar_of(constraint)
        compiled = self._kept.find(key)
        if compiled is None:
            compiled = self._compile(constraint, key[1])
            self._kept.add(key, compiled)
        return key, compiled

    def _compile(self, constraint: Constraint, text: str) -> LLMatcher:
        from llguidance import LLMatcher

        with self._making:
            vocabulary = self._vocabulary
            if isinstance(constraint, JsonSchema):
                _ = self._json_vocabulary  # looked at now, since `matcher` is to be quick
        compiled = LLMatcher(vocabulary, text, log_level=0, limits=_limits(constraint))
        if compiled.is_error():
            raise refusal(constraint, compiled.get_error())
        self._try(constraint, compiled.deep_copy())
        return compiled

    def _try(self, constraint: Constraint, trial: LLMatcher) -> None:
        """Insist that an answer can begin, and that a step back is possible, as guesses need it."""
        started_s = thread_time()
        words = memoryview(trial.compute_bitmask()).cast("I")
        if trial.is_error():
            raise refusal(constraint, trial.get_error())
        if thread_time() - started_s > MAX_MASK_S + MAX_DELAY_S:
            raise refusal(constraint, "it takes too long to find what may come first; make it simpler")
        first = next(
            (32 * i + bit for i, word in enumerate(words) for bit in range(32) if word >> bit & 1), -1
        )
        if first < 0:
            raise refusal(constraint, "no answer suits it")
        if first >= self._vocab_size:
            return
        if not trial.consume_token(first):
            raise refusal(constraint, trial.get_error())
        if not trial.rollback(1):
            raise refusal(constraint, f"`max_tokens`, `stop` and such are not supported: {trial.get_error()}")

    @cached_property
    def _json_vocabulary(self) -> JsonVocabulary:
        known = min(self._vocab_size, self._tokenizer.vocab_size)
        return JsonVocabulary(self._tokenizer, known, self.n_words)

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        try:
            return LLTokenizer(_Tokens(self._tokenizer, self._vocab_size))  # type: ignore[arg-type]
        except ValueError as error:
            raise ConstraintError(f"the model's vocabulary cannot be constrained: {error}") from error


class _Tokens:
    """A vocabulary as llguidance asks for it: the bytes of each token, and how a text is cut into tokens."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        known = min(vocab_size, tokenizer.vocab_size)
        texts = [tokenizer.bytes_or_none(token) or b"" for token in range(known)]
        # The end of an answer is a token of its own here: models have several, and some have none.
        self.eos_token_id = vocab_size
        self.tokens = [*texts, *[b""] * (vocab_size - known), b"<end of answer>"]
        special = (token for token in tokenizer.special_tokens.values() if token < vocab_size)
        self.special_token_ids = [*special, vocab_size]
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, continues=True)


def _limits(constraint: Constraint) -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(
        # Ambiguous grammars take the cube of it; an object takes four for a property that may be left out.
        max_items_in_row=400 if isinstance(constraint, Lark) else 2_000,
        initial_lexer_fuel=500_000,  # some 100 ms
        step_lexer_fuel=200_000,  # some 15 ms
        step_max_items=50_000,
        max_lexer_states=10_000,  # some 20 MB
        max_grammar_size=100_000,
        precompute_large_lexemes=True,
        verbose_errors=False,  # they would repeat the prompt and the schema
    )
