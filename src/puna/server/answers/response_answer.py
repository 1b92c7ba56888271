"""Responses: parts of an answer to items, and to the events of a stream in their order."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from puna.engine.request import TokenLogprob, Usage
from puna.prompt.call_events import CallStarted, TextDelta
from puna.server.answers.choices import Choices
from puna.server.answers.logprobs import chat_logprobs
from puna.server.answers.parts import EndReason, Part
from puna.server.errors import ApiError
from puna.server.ids import new_id
from puna.server.schemas.items import FunctionCall, Message, OutputLogprob, OutputText
from puna.server.schemas.response_events import (
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    ItemEvent,
    PartEvent,
    ResponseEvent,
    StateEvent,
    TextDeltaEvent,
    TextDoneEvent,
)
from puna.server.schemas.response_replies import (
    IncompleteDetails,
    InputDetails,
    OutputDetails,
    Response,
    ResponseError,
    ResponseUsage,
)
from puna.tokens import Tokenizer

__all__ = ["ResponseAnswer", "usage_of_response"]


class ResponseAnswer:
    """Puts one response together.

    Attributes:
        response: it, as far as it is.
    """

    def __init__(self, response: Response, *, has_logprobs: bool) -> None:
        """Prepare the answer to a request.

        Args:
            response: before anything was said.
            has_logprobs: whether texts have log-probabilities.
        """
        self.response = response
        self._has_logprobs = has_logprobs
        self._n_events = 0
        self._is_told = False
        self._open: Message | FunctionCall | None = None

    def queued(self) -> Iterator[ResponseEvent]:
        """The first events of one that has to wait; `events` goes on from them."""
        self._is_told = True
        yield self._state("response.created")
        yield self._state("response.queued")

    async def events(self, choices: Choices) -> AsyncGenerator[ResponseEvent]:
        """All events but the last, which `last` gives once the response is kept."""
        has_begun = False
        async with aclosing(choices.arriving()) as arriving:
            async for _, parts, event in arriving:
                if not has_begun:
                    # Not before the engine took the request, so that a refusal can be an error response.
                    has_begun = True
                    if not self._is_told:
                        yield self._state("response.created")
                    yield self._state("response.in_progress")
                for each in self._more(choices.tokenizer, parts, event.logprobs):
                    yield each
        end = choices.end(0)
        assert end is not None, "the answer is not over"
        for each in self._finish(end, choices.usages[0]):
            yield each

    def last(self) -> ResponseEvent:
        """The event that says how it ended."""
        kinds = {"completed": "response.completed", "incomplete": "response.incomplete"}
        return self._state(kinds.get(self.response.status, "response.failed"))

    def fail(self, error: ApiError) -> None:
        """End the response for an error."""
        code = "rate_limit_exceeded" if error.status_code == 429 else "server_error"
        if 400 <= error.status_code < 429:
            code = "invalid_prompt"
        told = ResponseError.model_validate({"code": code, "message": error.message})
        self.response = self.response.model_copy(update={"status": "failed", "error": told})

    def _state(self, kind: str) -> StateEvent:
        return StateEvent(
            type=kind,  # type: ignore[arg-type]
            sequence_number=self._next(),
            response=self.response.model_copy(),
        )

    def _next(self) -> int:
        self._n_events += 1
        return self._n_events - 1

    @property
    def _index(self) -> int:
        return len(self.response.output) - 1

    def _more(
        self, tokenizer: Tokenizer, parts: list[Part], logprobs: tuple[TokenLogprob, ...]
    ) -> Iterator[ResponseEvent]:
        left = self._logprobs(tokenizer, logprobs)
        for part in parts:
            if isinstance(part, TextDelta):
                if not isinstance(self._open, Message):
                    yield from self._begin_message()
                yield self._text(part.text, left)
                left = []
            elif isinstance(part, CallStarted):
                yield from self._begin_call(part.name)
            else:
                assert isinstance(self._open, FunctionCall), "arguments of no call"
                self._open.arguments += part.json
                yield ArgumentsDeltaEvent(
                    type="response.function_call_arguments.delta",
                    sequence_number=self._next(),
                    item_id=self._open.id,
                    output_index=self._index,
                    delta=part.json,
                )
        if left and isinstance(self._open, Message):
            yield self._text("", left)

    def _logprobs(self, tokenizer: Tokenizer, entries: tuple[TokenLogprob, ...]) -> list[OutputLogprob]:
        if not self._has_logprobs:
            return []
        return [
            OutputLogprob.model_validate(entry.model_dump())
            for entry in chat_logprobs(tokenizer, entries).content
        ]

    def _begin_message(self) -> Iterator[ResponseEvent]:
        yield from self._close("completed")
        self._open = Message(
            type="message", id=new_id("msg_"), status="in_progress", role="assistant", content=[]
        )
        self.response.output.append(self._open)
        yield self._item("response.output_item.added")
        self._open.content.append(OutputText(type="output_text", text="", annotations=[], logprobs=[]))
        yield self._part("response.content_part.added")

    def _begin_call(self, name: str) -> Iterator[ResponseEvent]:
        yield from self._close("completed")
        self._open = FunctionCall(
            type="function_call",
            id=new_id("fc_"),
            status="in_progress",
            call_id=new_id("call_"),
            name=name,
            arguments="",
        )
        self.response.output.append(self._open)
        yield self._item("response.output_item.added")

    def _text(self, text: str, logprobs: list[OutputLogprob]) -> ResponseEvent:
        message, part = self._message()
        part.text += text
        part.logprobs += logprobs
        return TextDeltaEvent(
            type="response.output_text.delta",
            sequence_number=self._next(),
            item_id=message.id,
            output_index=self._index,
            content_index=0,
            delta=text,
            logprobs=logprobs,
        )

    def _close(self, status: str) -> Iterator[ResponseEvent]:
        """Say that the item that is being written is whole."""
        item = self._open
        if item is None:
            return
        if isinstance(item, Message):
            _, part = self._message()
            yield TextDoneEvent(
                type="response.output_text.done",
                sequence_number=self._next(),
                item_id=item.id,
                output_index=self._index,
                content_index=0,
                text=part.text,
                logprobs=part.logprobs,
            )
            yield self._part("response.content_part.done")
        else:
            yield ArgumentsDoneEvent(
                type="response.function_call_arguments.done",
                sequence_number=self._next(),
                item_id=item.id,
                output_index=self._index,
                name=item.name,
                arguments=item.arguments,
            )
        item.status = status  # type: ignore[assignment]
        yield self._item("response.output_item.done")
        self._open = None

    def _finish(self, end: EndReason, usage: Usage) -> Iterator[ResponseEvent]:
        if not self.response.output:
            yield from self._begin_message()  # even where the model said nothing
        is_cut = end == "length"
        yield from self._close("incomplete" if is_cut else "completed")
        self.response = self.response.model_copy(
            update={
                "status": "incomplete" if is_cut else "completed",
                "completed_at": None if is_cut else int(time.time()),
                "incomplete_details": IncompleteDetails(reason="max_output_tokens") if is_cut else None,
                "usage": usage_of_response(usage),
            }
        )

    def _message(self) -> tuple[Message, OutputText]:
        assert isinstance(self._open, Message), "no message is open"
        (part,) = self._open.content
        assert isinstance(part, OutputText), "the model writes texts"
        return self._open, part

    def _item(self, kind: str) -> ItemEvent:
        assert self._open is not None, "no item is open"
        return ItemEvent(
            type=kind,  # type: ignore[arg-type]
            sequence_number=self._next(),
            response_id=self.response.id,
            output_index=self._index,
            item=self._open.model_copy(deep=True),
        )

    def _part(self, kind: str) -> PartEvent:
        message, part = self._message()
        return PartEvent(
            type=kind,  # type: ignore[arg-type]
            sequence_number=self._next(),
            response_id=self.response.id,
            item_id=message.id,
            output_index=self._index,
            content_index=0,
            part=part.model_copy(),
        )


def usage_of_response(usage: Usage) -> ResponseUsage:
    """What an answer cost, as the Responses API tells it."""
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputDetails(cached_tokens=usage.cached_tokens, cache_write_tokens=0),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(reasoning_tokens=0),
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )
