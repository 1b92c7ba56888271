"""Answers of one request while they are computed: several prompts or choices as one stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
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
            owner: whose prompts are cached together; empty: everybody's.
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
        self.deadline = Deadline(timeout_s)
        self.requests: dict[int, Request] = {}

    async def events(self) -> AsyncGenerator[tuple[int, Event]]:
        """Index of the answer and its event, as they come.

        Raises:
            ApiError: 504, it takes too long; or whatever the engine refuses.
            EngineError: the engine failed.
        """
        tasks = [asyncio.create_task(self._run(index)) for index in range(len(self._wanted))]
        try:
            n_open = len(tasks)
            while n_open:
                index, event = await self._queue.get()
                if event.error is not None:
                    raise event.error
                n_open -= event.is_last
                yield index, event
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def end(self, index: int) -> None:
        """End one answer early; its last event still comes."""
        self._model.llama.engine.cancel(self.requests[index])

    async def _run(self, index: int) -> None:
        wanted = self._wanted[index]
        span = AnswerSpan(self._tracer, self._model.llama.info.name, len(wanted.prompt), wanted.params)
        try:
            async with self.deadline.limit():
                await self._compute(index, span)
        except TimeoutError as timeout:
            span.failed(timeout)
            self._queue.put_nowait((index, Event(error=self.deadline.error())))
        except Exception as error:
            span.failed(error)
            self._queue.put_nowait((index, Event(error=error)))
        except asyncio.CancelledError as gone:
            span.failed(gone)
            raise
        finally:
            span.end()

    async def _compute(self, index: int, span: AnswerSpan) -> None:
        wanted, engine = self._wanted[index], self._model.llama.engine
        limit = engine.context_tokens - len(wanted.prompt)
        n_new = limit if wanted.params.max_tokens is None else min(limit, wanted.params.max_tokens)
        n_tokens = len(wanted.prompt) + max(n_new, 0)
        async with self._model.admission.reserve(self._client, n_tokens) as turn:
            span.admitted()
            is_over = asyncio.Event()
            request = Request(
                prompt=wanted.prompt,
                params=wanted.params,
                stop_ids=self._model.llama.chat_format.stop_ids,
                sink=self._sink(index, turn, is_over, span),
                owner=self._owner,
            )
            engine.submit(request)
            self.requests[index] = request
            try:
                await is_over.wait()
            finally:
                if not is_over.is_set():
                    engine.cancel(request)

    def _sink(
        self, index: int, turn: Turn, is_over: asyncio.Event, span: AnswerSpan
    ) -> Callable[[Event], None]:
        loop = asyncio.get_running_loop()

        def take(event: Event) -> None:
            self._queue.put_nowait((index, event))
            self._meter.on_event(index, event)
            span.on_event(event)
            if event.tokens:
                self._model.admission.on_token(turn)
            if event.is_last:
                is_over.set()

        # Called by the engine's thread.
        return lambda event: (loop.call_soon_threadsafe(take, event), None)[1]
