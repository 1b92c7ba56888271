"""The native C++ engine behind the `Engine` protocol: one thread that runs step after step.

Callers submit from any thread; the engine's thread admits, computes and tells the sinks. It sleeps while
there is nothing to do.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Collection, Container, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from puna import _native
from puna.constraints import Compiler, Constraint
from puna.engine.blocks import BlockManager
from puna.engine.draft import Draft
from puna.engine.masks import Masks
from puna.engine.native_parts import formats_of, new_cache, new_model, new_sampler
from puna.engine.pace import pace_of
from puna.engine.passes import Logits, MeanHidden, Pass, Passes, Reader, Scores
from puna.engine.request import Request, TokenLogprob
from puna.engine.scheduler import STEP_TOKENS, Scheduler, Step
from puna.engine.sequence import Sequence as RunningSequence
from puna.engine.speculation import Proposer, proposer
from puna.errors import CapacityError, ConfigError, ConstraintError, EngineError, PunaError
from puna.models.cache import cache_bytes_per_token, cache_format
from puna.models.fit import context_for
from puna.models.packed import PackedModel
from puna.tokens import Tokenizer

__all__ = ["NativeEngine", "default_threads", "threads_for"]

_SEQUENCES = 4  # the cache has room for so many full contexts; unused pages cost nothing
_NOT_FINITE = "the model gave numbers that are not finite; its weights may be damaged"

T = TypeVar("T")


def default_threads() -> int:
    """Number of CPUs this process may use: its affinity mask, or the machine's count."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def threads_for(wanted: int | None) -> int:
    """How many threads compute.

    Args:
        wanted: what is asked for; None: `default_threads`.

    Raises:
        ConfigError: they are not 1 to 1024.
    """
    n_threads = default_threads() if wanted is None else wanted
    if not 1 <= n_threads <= 1024:
        raise ConfigError(f"`threads` must be 1 to 1024, got {n_threads}")
    return n_threads


class NativeEngine:
    """A model, its cache and its threads; implements `Engine`.

    On Linux its threads are as nice to others as the one that makes it.

    Attributes:
        context_tokens: positions that one prompt and its answer may take.
        cache_tokens: positions of all requests together, in whole blocks.
        n_threads: threads that compute.
        cache: how keys and values are kept: ``f32``, ``f16`` or ``int8``.
        cache_bytes_per_token: memory that a position costs once it is used.
    """

    def __init__(
        self,
        model: PackedModel,
        tokenizer: Tokenizer,
        *,
        context_tokens: int | None = None,
        n_threads: int | None = None,
        cache_tokens: int | None = None,
        cache: str = "auto",
        speculation: str = "lookup",
        draft: PackedModel | None = None,
    ) -> None:
        """Prepare the model; memory for the cache is only reserved here and taken when used.

        Args:
            model: packed weights.
            tokenizer: of the same model, for the text of the events.
            context_tokens: at most the model's own; default: the model's own, at most 8192.
            n_threads: 1 to 1024; default: the CPUs this process may use.
            cache_tokens: positions of all requests together; default: 4 contexts.
            cache: how keys and values are kept, see `puna.models.cache.cache_format`.
            speculation: how the next tokens are guessed, which changes the speed and not the answer.
            draft: a smaller model of the same vocabulary, which guesses in place of a look-up.

        Raises:
            ConfigError: a setting is out of range, or the draft model does not go with the model.
            NativeError: the engine cannot run this architecture, or there is no memory.
        """
        config = model.config
        self._longest_context = config.max_seq_len
        self.context_tokens = context_for(config.max_seq_len, context_tokens)
        self.n_threads = threads_for(n_threads)
        n_tokens = _SEQUENCES * self.context_tokens if cache_tokens is None else cache_tokens
        n_blocks = -(-n_tokens // _native.BLOCK_TOKENS)
        self.cache_tokens = n_blocks * _native.BLOCK_TOKENS
        self.cache = cache_format(cache, formats_of(model))
        self.cache_bytes_per_token = cache_bytes_per_token(config, self.cache)
        self._tokenizer, self._left_out = tokenizer, frozenset(tokenizer.left_out(config.vocab_size))
        self._runner = _native.Runner(
            new_model(model), new_cache(model, n_blocks, self.cache), self.n_threads, list(self._left_out)
        )
        self._compiler = Compiler(tokenizer, config.vocab_size)
        self._vocab_size, self._dim, self._pace = config.vocab_size, config.dim, pace_of(config)
        self._n_blocks, self._speculation = n_blocks, speculation
        self._draft: tuple[_native.Runner, int] | None = None
        if draft is not None:
            if proposer(speculation) is None:
                raise ConfigError("a draft model guesses and `speculation` is 'off'; leave one of them out")
            if draft.config.vocab_size != config.vocab_size:
                raise ConfigError(
                    f"the draft model needs the vocabulary of the model, {config.vocab_size} tokens, and has "
                    f"{draft.config.vocab_size}; take a smaller model of the same family"
                )
            draft_cache = new_cache(draft, n_blocks, cache_format(cache, formats_of(draft)))
            drafting = _native.Runner(new_model(draft), draft_cache, self._runner, list(self._left_out))
            self._draft = drafting, draft.config.max_seq_len
        self._scheduler, self._passes = self._queues()
        # Everything above belongs to the engine's thread; what others ask of it waits in these.
        self._inbox: list[RunningSequence] = []
        self._asked: list[Pass[Any]] = []
        self._cancelled: set[Request] = set()
        self._has_news = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._niceness = _niceness()

    @property
    def free_cache_tokens(self) -> int:
        """Positions of the cache that no request holds; see `Engine.free_cache_tokens`."""
        return self._scheduler.blocks.n_free * _native.BLOCK_TOKENS

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing any more; see `Engine.is_closed`."""
        return self._is_closed

    def check_prompt(self, prompt: Sequence[int], room: int = 1) -> None:
        """Raise what `submit` would for the prompt; see `Engine.check_prompt`."""
        if not prompt:
            raise ConfigError("the prompt is empty, it needs at least 1 token; give it some text")
        if len(prompt) + room > self.context_tokens:
            advice = "shorten it"
            if self.context_tokens < self._longest_context:
                advice += f" or load the model with a larger `context`, up to {self._longest_context}"
            raise CapacityError(
                f"the prompt has {len(prompt)} tokens and at most {self.context_tokens - room} fit the "
                f"context of {self.context_tokens}; {advice}"
            )
        self.check_ids(prompt)

    def check_ids(self, tokens: Collection[int]) -> None:
        """Raise where ids are no tokens; see `Engine.check_ids`."""
        for token in (min(tokens, default=0), max(tokens, default=0)):
            if not 0 <= token < self._vocab_size:
                raise ConfigError(f"token {token} is not in the vocabulary of {self._vocab_size}")
        if self._left_out and not self._left_out.isdisjoint(tokens):
            token = min(self._left_out.intersection(tokens))
            raise ConfigError(
                f"token {token} is not in the vocabulary: it is a row of the model without a text"
            )

    def submit(self, request: Request) -> None:
        """Queue a request; see `Engine.submit`."""
        self.check_prompt(request.prompt)
        self.check_ids(request.params.logit_bias)
        constraint, matcher = request.params.constraint, None
        if constraint is not None:
            matcher = self._compiler.matcher(constraint, request.stop_ids, request.owner)
        sequence = RunningSequence(
            request, new_sampler(request), self._tokenizer, self.context_tokens, matcher
        )
        blocks = self._scheduler.blocks
        if blocks.blocks_for(sequence.max_length) > blocks.n_blocks:
            raise CapacityError(
                f"the request may take {sequence.max_length} tokens and the cache holds "
                f"{blocks.n_blocks * blocks.block_tokens}; lower `max_tokens`"
            )
        with self._has_news:
            self._wake()
            self._inbox.append(sequence)

    def prepare(self, constraint: Constraint, owner: str = "") -> None:
        """Compile a constraint ahead of requests; see `Engine.prepare`."""
        self._compiler.prepare(constraint, owner)

    def cancel(self, request: Request) -> None:
        """End a request at the next step; see `Engine.cancel`."""
        with self._has_news:
            self._cancelled.add(request)
            self._has_news.notify()

    def embed(self, tokens: Sequence[int]) -> Future[NDArray[np.float32]]:
        """Mean of a text's final hidden states, ``[dim]``; see `Engine.embed`."""
        return self._pass(tokens, MeanHidden(self._dim))

    def score(self, tokens: Sequence[int], n_top: int = 0) -> Future[list[TokenLogprob]]:
        """Log-probability of every token after the first; see `Engine.score`."""
        return self._pass(tokens, Scores(tokens, n_top, list(self._left_out)))

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits at every position, ``[tokens, vocabulary]``: for tests and small texts."""
        return self._pass(tokens, Logits()).result()

    def close(self) -> None:
        """End all requests and stop the thread; see `Engine.close`."""
        with self._has_news:
            self._is_closed = True
            self._has_news.notify()
        # The engine's own thread may be the last to let go of the model.
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _wake(self) -> None:
        """Have the thread look for work; the caller holds `_has_news`."""
        if self._is_closed:
            raise _closed()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="puna-engine", daemon=True)
            self._thread.start()
        self._has_news.notify()

    def _pass(self, tokens: Sequence[int], reader: Reader[T]) -> Future[T]:
        self.check_prompt(tokens, room=0)
        if len(tokens) > self.cache_tokens:
            raise CapacityError(
                f"the text has {len(tokens)} tokens and the cache holds {self.cache_tokens}; shorten it or "
                "load the model with a larger `cache_tokens`"
            )
        each = Pass(tokens, reader, self._pace)
        with self._has_news:
            self._wake()
            self._asked.append(each)
        return each.future

    def _queues(self) -> tuple[Scheduler, Passes]:
        """What keeps account of requests, passes and the cache, in which nothing is known yet."""
        blocks = BlockManager(self._n_blocks, _native.BLOCK_TOKENS)
        guesser: Proposer | None = proposer(self._speculation)
        if self._draft is not None:
            runner, longest = self._draft
            guesser = Draft(runner, blocks, longest)
        return Scheduler(blocks, STEP_TOKENS, self._pace, guesser), Passes(blocks)

    def _run(self) -> None:
        """Step after step, until closed."""
        try:
            if self._niceness > _niceness():
                os.setpriority(os.PRIO_PROCESS, 0, self._niceness)
            while not self._turn():
                pass
        finally:  # there may be no memory for a new account: nobody is to wait for a thread that is gone
            with self._has_news:
                self._is_closed = True
            for sequence in [*self._scheduler.all(), *self._inbox]:
                _tell(sequence, _closed())
            for each in self._asked:
                each.finish(_closed())
            self._passes.fail(_closed())

    def _turn(self) -> bool:
        """Wait for work, take in what is new and compute a step; whether it was the last one."""
        with self._has_news:
            self._has_news.wait_for(self._has_work)
            arrived, self._inbox = self._inbox, []
            asked, self._asked = self._asked, []
            cancelled, self._cancelled = self._cancelled, set()
            is_closed = self._is_closed
        for sequence in arrived:
            self._scheduler.add(sequence)
        for each in asked:
            self._passes.add(each)
        try:
            self._end(cancelled, is_closed)
            self._step()
            self._passes.step(self._runner)
        except Exception as error:  # a draft model that finds no memory perhaps; the account may be wrong
            self._start_anew(error)
        return is_closed

    def _end(self, cancelled: Container[Request], is_closed: bool) -> None:
        """Let go of what is not wanted any more."""
        for sequence in self._scheduler.all():
            if is_closed or sequence.request in cancelled:
                with suppress(Exception):  # its reader may be gone
                    sequence.cancel()
                self._forget(sequence)
        if is_closed:
            self._passes.fail(_closed())

    def _start_anew(self, error: Exception) -> None:
        """Lose all that runs and waits, and what is known of the cache, but nothing that comes."""
        failure = _failure(f"the engine lost track of what runs and waits: {error!r}; ask again", error)
        for sequence in self._scheduler.all():
            _tell(sequence, failure)
        with suppress(Exception):
            self._passes.fail(failure)
        self._scheduler, self._passes = self._queues()

    def _has_work(self) -> bool:
        has_news = self._is_closed or self._inbox or self._asked or self._cancelled
        return bool(has_news or not self._scheduler.is_idle or not self._passes.is_idle)

    def _step(self) -> None:
        step = self._scheduler.next_step()
        if step is None:
            return
        try:
            masks = Masks(step, self._compiler.n_words)
            samples = self._runner.sample(
                step.tokens,
                step.slices,
                step.block_tables,
                step.output_rows,
                [sequence.sampler for sequence in step.sampled for _ in range(1 + len(sequence.guess))],
                masks.words,
            )
            masks.correct(self._runner, samples)
        except Exception as error:
            # Only what was in the step is lost; the engine goes on with the others.
            failure = _failure(f"the engine failed in a step: {error!r}", error)
            for sequence in step.sequences:
                self._fail(sequence, failure)
            return
        has_first = not all(sequence.has_begun for sequence in step.sampled)
        self._deliver(step, samples)
        if has_first:
            # Whoever waits for it runs first: in the next step this engine has all CPUs. CPython gives this
            # one away only on Linux and from 3.11 on, where it calls clock_nanosleep.
            time.sleep(0)

    def _deliver(self, step: Step, samples: list[list[_native.Sample]]) -> None:
        for sequence, n_tokens in zip(step.sequences, step.slices[:, 0].tolist(), strict=True):
            sequence.n_right = 0
            self._scheduler.advance(sequence, n_tokens - len(sequence.guess))
        for sequence, picked in zip(step.sampled, samples, strict=True):
            if sequence.matcher is not None and sequence.matcher.error is not None:
                self._fail(sequence, sequence.matcher.error)
                continue
            finite = [sample for sample in picked if sample.is_finite]
            try:
                reason = sequence.accept(finite) if finite else None
            except ConstraintError as error:
                self._fail(sequence, error)
                continue
            except Exception as error:  # a sink whose reader is gone, perhaps
                self._fail(sequence, _failure(f"the answer cannot be delivered: {error!r}", error))
                continue
            self._scheduler.advance(sequence, sequence.n_right)
            if reason is not None:
                self._forget(sequence)
            elif len(finite) < len(picked):
                self._fail(sequence, EngineError(_NOT_FINITE))

    def _fail(self, sequence: RunningSequence, error: PunaError) -> None:
        _tell(sequence, error)
        self._forget(sequence)

    def _forget(self, sequence: RunningSequence) -> None:
        self._scheduler.remove(sequence)


def _niceness() -> int:
    """How nice the calling thread is; elsewhere than on Linux that is a matter of the whole process."""
    return os.getpriority(os.PRIO_PROCESS, 0) if sys.platform == "linux" else 0


def _tell(sequence: RunningSequence, error: PunaError) -> None:
    with suppress(Exception):  # the sink itself may be what failed
        sequence.fail(error)


def _failure(text: str, cause: Exception) -> EngineError:
    failure = EngineError(text)
    failure.__cause__ = cause  # for the log and for who debugs: where it failed
    return failure


def _closed() -> EngineError:
    return EngineError("the engine is closed; load the model again")
