"""Requests to an engine, and what comes of them."""

from __future__ import annotations

import queue
from typing import Any

from puna.engine.native import NativeEngine
from puna.engine.request import Event, Request, SamplingParams, Usage


class Caller:
    """Submits a request and gathers its events."""

    def __init__(self, engine: NativeEngine, prompt: list[int], **options: Any) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        settings = {"temperature": 0.0, "max_tokens": 40, "ignore_eos": True, "seed": 0, **options}
        self.request = Request(
            prompt=prompt,
            params=SamplingParams(**settings),
            stop_ids=frozenset({257}),
            sink=self.events.put,
        )
        engine.submit(self.request)

    def finish(self) -> tuple[list[Any], Usage]:
        """What speculation must not change (text, tokens, logprobs, reason; costs), and the usage."""
        text, tokens, logprobs = "", [], []
        while True:
            event = self.events.get(timeout=60)
            assert event.error is None, event.error
            text += event.text
            tokens += event.tokens
            logprobs += event.logprobs
            if event.usage is not None:
                cost = (event.usage.completion_tokens, event.usage.cached_tokens)
                return [text, tokens, logprobs, event.finish_reason, cost], event.usage

    def last(self) -> Event:
        """What ends the request."""
        while not (event := self.events.get(timeout=60)).is_last:
            pass
        return event

    def error(self) -> Exception:
        """The error that ends the request."""
        last = self.last()
        assert last.error is not None
        assert last.usage is None
        return last.error
