"""Chat completions: events of a generation to a whole response, or to the chunks of a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import puna
from puna.engine.request import Event, TokenLogprob
from puna.prompt.call_events import CallStarted, TextDelta
from puna.server.answers.choices import Choices
from puna.server.answers.logprobs import chat_logprobs
from puna.server.answers.parts import Part, whole_calls
from puna.server.ids import new_id
from puna.server.schemas.chat import (
    AnswerMessage,
    ChatBody,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChunkChoice,
    Delta,
    FunctionCall,
    FunctionDelta,
    ToolCall,
    ToolCallDelta,
)
from puna.server.schemas.usage import Usage as WireUsage
from puna.server.schemas.usage import usage_of

__all__ = ["FINGERPRINT", "ChatAnswer"]

FINGERPRINT = f"puna-{puna.__version__}"


class ChatAnswer:
    """Puts one chat completion together.

    Attributes:
        id: of the completion.
    """

    def __init__(self, choices: Choices, body: ChatBody) -> None:
        """Prepare the answer to a request.

        Args:
            choices: the answers.
            body: the request.
        """
        self.id = new_id("chatcmpl-")
        self._created = int(time.time())
        self._choices = choices
        self._tokenizer = choices.tokenizer
        self._body = body
        self._parts: list[list[Part]] = [[] for _ in range(len(choices))]
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(len(choices))]
        self._call_ids: dict[tuple[int, int], str] = {}  # by choice and number of the call

    async def whole(self) -> ChatCompletion:
        """Wait for all choices."""
        async with aclosing(self._arriving()) as arriving:
            async for _ in arriving:
                pass
        return self.completion()

    def completion(self) -> ChatCompletion:
        """All of it, once every choice is over."""
        return ChatCompletion(
            id=self.id,
            object="chat.completion",
            created=self._created,
            model=self._body.model,
            choices=[self._choice(i) for i in range(len(self._choices))],
            usage=self._usage(),
            system_fingerprint=FINGERPRINT,
        )

    async def chunks(self) -> AsyncGenerator[ChatChunk]:
        """The chunks of a stream, as they come."""
        begun: set[int] = set()
        async with aclosing(self._arriving()) as arriving:
            async for index, new, event in arriving:
                if index not in begun:
                    # Not before the engine took the request, so that a refusal can be an error response.
                    begun.add(index)
                    delta = Delta(role="assistant", content="")
                    yield self._chunk(ChunkChoice(index=index, delta=delta, finish_reason=None))
                for chunk in self._more(index, new, event):
                    yield chunk
        options = self._body.stream_options
        if options is not None and options.include_usage:
            yield self._chunk(usage=True)

    async def _arriving(self) -> AsyncGenerator[tuple[int, list[Part], Event]]:
        async with aclosing(self._choices.arriving()) as arriving:
            async for index, new, event in arriving:
                self._parts[index] += new
                self._logprobs[index] += event.logprobs
                yield index, new, event

    def _more(self, index: int, new: list[Part], event: Event) -> list[ChatChunk]:
        """Chunks for an event: one for each part, log-probabilities with the first."""
        deltas = [self._delta(index, part) for part in new]
        if event.logprobs and self._body.logprobs and not deltas:
            deltas.append(Delta(content=""))
        chunks = []
        for delta in deltas:
            choice = ChunkChoice(index=index, delta=delta, finish_reason=None)
            if self._body.logprobs and delta is deltas[0]:
                choice.logprobs = chat_logprobs(self._tokenizer, event.logprobs)
            chunks.append(self._chunk(choice))
        end = self._choices.end(index)
        if end is not None:
            chunks.append(self._chunk(ChunkChoice(index=index, delta=Delta(), finish_reason=end)))
        return chunks

    def _choice(self, index: int) -> ChatChoice:
        parts = self._parts[index]
        text = "".join(part.text for part in parts if isinstance(part, TextDelta))
        calls = self._calls(index)
        message = AnswerMessage(role="assistant", content=text if text or not calls else None, refusal=None)
        if calls:
            message.tool_calls = calls
        end = self._choices.end(index)
        assert end is not None, f"choice {index} is not over"
        logprobs = chat_logprobs(self._tokenizer, self._logprobs[index]) if self._body.logprobs else None
        return ChatChoice(index=index, message=message, logprobs=logprobs, finish_reason=end)

    def _chunk(self, choice: ChunkChoice | None = None, *, usage: bool = False) -> ChatChunk:
        chunk = ChatChunk(
            id=self.id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._body.model,
            choices=[] if choice is None else [choice],
            system_fingerprint=FINGERPRINT,
        )
        if usage:
            chunk.usage = self._usage()
        return chunk

    def _usage(self) -> WireUsage:
        usages = self._choices.usages
        return usage_of([usages[i] for i in sorted(usages)], n=len(self._choices))

    def _delta(self, index: int, part: Part) -> Delta:
        if isinstance(part, TextDelta):
            return Delta(content=part.text)
        if isinstance(part, CallStarted):
            function = FunctionDelta(name=part.name, arguments="")
            call_id = self._call_id(index, part.index)
            call = ToolCallDelta(index=part.index, id=call_id, type="function", function=function)
        else:
            call = ToolCallDelta(index=part.index, function=FunctionDelta(arguments=part.json))
        return Delta(tool_calls=[call])

    def _calls(self, index: int) -> list[ToolCall]:
        return [
            ToolCall(
                id=self._call_id(index, call.index),
                type="function",
                function=FunctionCall(name=call.name, arguments=call.arguments),
            )
            for call in whole_calls(self._parts[index])
        ]

    def _call_id(self, index: int, call: int) -> str:
        return self._call_ids.setdefault((index, call), new_id("call_"))
