"""An engine that says what a test wants it to say."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from puna.constraints import Compiler, Constraint
from puna.engine.request import Event, Request, TokenLogprob, Usage
from puna.engine.stop import StopTexts
from puna.errors import CapacityError
from puna.tokens import TextStream, Tokenizer

T = TypeVar("T")


def done(result: T) -> Future[T]:
    """A future that has its result."""
    future: Future[T] = Future()
    future.set_result(result)
    return future


class ScriptedEngine:
    """Implements `puna.engine.protocol.Engine`; what it says depends on a word in the prompt.

    Attributes:
        prompts: ids of every prompt, in their order.
        constraints: that of every prompt, None where it had none; it says what it likes all the same.
        cancelled: requests that were cancelled.
    """

    context_tokens = 4096
    cache_tokens = 4096
    free_cache_tokens = 4096
    is_closed = False

    def __init__(self, tokenizer: Tokenizer, script: Mapping[str, str]) -> None:
        """Say what stands in `script` behind the first key that is in the prompt, else "hum".

        At a U+2026 it falls silent until the request is cancelled.
        """
        self._tokenizer = tokenizer
        self._script = script
        self._compiler = Compiler(tokenizer, tokenizer.vocab_size)
        self.prompts: list[list[int]] = []
        self.constraints: list[Constraint | None] = []
        self.cancelled: list[Request] = []
        self._is_cancelled = threading.Condition()

    def prepare(self, constraint: Constraint, owner: str = "") -> None:
        self._compiler.prepare(constraint, owner)

    def check_prompt(self, prompt: Sequence[int], room: int = 1) -> None:
        if len(prompt) + room > self.context_tokens:
            raise CapacityError("the prompt is too long")

    def check_ids(self, tokens: Collection[int]) -> None:
        pass

    def submit(self, request: Request) -> None:
        self.prompts.append(list(request.prompt))
        self.constraints.append(request.params.constraint)
        text = self._tokenizer.decode(request.prompt)
        said = next((answer for key, answer in self._script.items() if key in text), "hum")
        ids = self._tokenizer.encode_with_special(said)
        threading.Thread(target=self._say, args=(request, ids)).start()

    def _say(self, request: Request, ids: Sequence[int]) -> None:
        stream, stop = TextStream(self._tokenizer), StopTexts(request.params.stop_texts)
        usage = Usage(
            prompt_tokens=len(request.prompt),
            cached_tokens=0,
            completion_tokens=len(ids),
            time_to_first_token_s=0.0,
            decode_s=0.0,
        )
        dots = self._tokenizer.encode("\u2026")[-1]  # its first bytes begin other characters too
        for token in ids:
            if token == dots:
                with self._is_cancelled:
                    self._is_cancelled.wait_for(lambda: request in self.cancelled, timeout=20)
            if request in self.cancelled:
                request.sink(Event(finish_reason="cancelled", usage=usage))
                return
            text, is_met = stop.push(stream.push(token))
            logprobs = (TokenLogprob(token, -0.5),) if request.params.logprobs is not None else ()
            if is_met:
                request.sink(Event(text=text, tokens=(token,), finish_reason="stop", usage=usage))
                return
            request.sink(Event(text=text, tokens=(token,), logprobs=logprobs))
        request.sink(Event(text=stop.finish(), finish_reason="stop", usage=usage))

    def cancel(self, request: Request) -> None:
        with self._is_cancelled:
            self.cancelled.append(request)
            self._is_cancelled.notify_all()

    def embed(self, tokens: Sequence[int]) -> Future[NDArray[np.float32]]:
        return done(np.ones(4, np.float32))

    def score(self, tokens: Sequence[int], n_top: int = 0) -> Future[list[TokenLogprob]]:
        return done([TokenLogprob(token, 0.0) for token in tokens[1:]])

    def close(self) -> None:
        pass
