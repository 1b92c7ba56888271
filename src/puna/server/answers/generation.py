"""Answers of one request while they are computed: several prompts or choices as one stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from opentelemetry.trace import Tracer

from puna.engine.request import Event, Request, SamplingParams
from puna.server.answers.deadline import Deadline
from puna.server.hosting.admission import Turn
from puna.server.hosting.hosted import Loaded
from puna.server.watch.metrics import AnswerMeter
from puna.server.watch.traces import AnswerSpan

__all__ = ["Generation", "Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One answer that a request wants.

    Attributes:
        prompt: token ids.
        params: how to sample.
    """

    prompt: Sequence[int]
    params: SamplingParams


class Generation:
    """Runs answers, each as soon as the engine has room for it. Leaving the loop over it ends them all.

    Attributes:
        deadline: of the whole request.
        requests: the engine's own, by index, once they were submitted.
    """

    def __init__(
        self,
        model: Loaded,
        wanted: Sequence[Wanted],
        *,
        client: str,
        owner: str,
        timeout_s: float,
        meter: AnswerMeter,
        tracer: Tracer,
    ) -> None:
        """Prepare answers; nothing runs before the loop begins.

        Args:
            model: what computes.
            wanted: the answers.
            client: who asks, for fair turns.
            owner: whose prompts and constraints are kept together; empty: everybody's.
            timeout_s: time for all of them, waiting included.
            meter: is told what happens.
            tracer: records it.

        Raises:
            ApiError: 429, too many answers wait already.
            CapacityError: a prompt does not fit the context.
            ConfigError: one is empty or has ids outside the vocabulary.
        """
        model.admission.check(client, len(wanted))
        for prompt in {id(each.prompt): each.prompt for each in wanted}.values():  # answers share theirs
            model.llama.engine.check_prompt(prompt)
        self._model = model
        self._wanted = wanted
        self._client = client
        self._owner = owner
        self._meter = meter
        self._tracer = tracer
        self._queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._spans: dict[int, AnswerSpan] = {}  # of answers that wait or run
        self._turns: dict[int, Turn] = {}  # of those that run, or are about to
        self.deadline = Deadline(timeout_s)
        self.requests: dict[int, Request] = {}

    async def events(self) -> AsyncGenerator[tuple[int, Event]]:
        """Index of the answer and its event, as they come.

        Raises:
            ApiError: 504, it takes too long; or whatever the engine refuses.
            EngineError: the engine failed.
        """
        late = self.deadline.call(self._give_up)
        waiting: list[asyncio.Task[None]] = []
        try:
            for index in range(len(self._wanted)):
                if not self._begin_now(index):
                    waiting.append(asyncio.create_task(self._begin_later(index)))
            n_open = len(self._wanted)
            while n_open:
                index, event = await self._queue.get()
                if event.error is not None:
                    raise event.error
                n_open -= event.is_last
                yield index, event
        except BaseException as error:
            # Who stops reading wants no more, as who is cancelled.
            reason = asyncio.CancelledError() if isinstance(error, GeneratorExit) else error
            for span in self._spans.values():
                span.failed(reason)
            raise
        finally:
            late.cancel()
            for index in list(self._spans):
                if index in self.requests:
                    self.end(index)
                self._let_go(index)
            if waiting:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    def end(self, index: int) -> None:
        """End one answer early; its last event still comes."""
        self._model.llama.engine.cancel(self.requests[index])

    def _begin_now(self, index: int) -> bool:
        """Have an answer computed; False where there is no room for it yet."""
        wanted = self._wanted[index]
        self._spans[index] = AnswerSpan(
            self._tracer, self._model.llama.info.name, len(wanted.prompt), wanted.params
        )
        turn = self._model.admission.take(self._client, self._longest(wanted))
        if turn is None:
            return False
        self._turns[index] = turn
        self._begin(index)
        return True

    async def _begin_later(self, index: int) -> None:
        try:
            wanted = self._wanted[index]
            self._turns[index] = await self._model.admission.wait(self._client, self._longest(wanted))
            if wanted.params.constraint is not None:
                # It may have been pushed out meanwhile, and to compile it takes up to a second.
                engine = self._model.llama.engine
                await asyncio.to_thread(engine.prepare, wanted.params.constraint, self._owner)
            self._begin(index)
        except Exception as error:
            self._queue.put_nowait((index, Event(error=error)))

    def _begin(self, index: int) -> None:
        loop, wanted = asyncio.get_running_loop(), self._wanted[index]
        self._spans[index].admitted()
        self.requests[index] = Request(
            prompt=wanted.prompt,
            params=wanted.params,
            stop_ids=self._model.llama.chat_format.stop_ids,
            # Called by the engine's thread.
            sink=lambda event: (loop.call_soon_threadsafe(self._take, index, event), None)[1],
            owner=self._owner,
        )
        self._model.llama.engine.submit(self.requests[index])

    def _give_up(self) -> None:
        self._queue.put_nowait((0, Event(error=self.deadline.error())))

    def _longest(self, wanted: Wanted) -> int:
        """Tokens of a prompt and its longest possible answer."""
        limit = self._model.llama.engine.context_tokens - len(wanted.prompt)
        n_new = limit if wanted.params.max_tokens is None else min(limit, wanted.params.max_tokens)
        return len(wanted.prompt) + max(n_new, 0)

    def _take(self, index: int, event: Event) -> None:
        """Take an event; some still come for an answer that was ended."""
        self._queue.put_nowait((index, event))
        self._meter.on_event(index, event)
        if index not in self._turns:
            return
        self._spans[index].on_event(event)
        if event.tokens:
            self._model.admission.on_token(self._turns[index])
        if event.is_last:
            self._let_go(index)

    def _let_go(self, index: int) -> None:
        """An answer neither waits nor runs any more."""
        if index in self._turns:
            self._model.admission.end(self._turns.pop(index))
        self._spans.pop(index).end()
