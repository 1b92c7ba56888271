"""Chat completions: events of a generation to a whole response, or to the chunks of a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import puna
from puna.engine.request import Event, TokenLogprob, Usage
from puna.prompt.call_events import ArgumentsDelta, CallStarted, TextDelta
from puna.prompt.tool_schema import ToolSet
from puna.server.answers.generation import Generation
from puna.server.answers.logprobs import chat_logprobs
from puna.server.answers.parts import AnswerParts, Part
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
from puna.tokens import Tokenizer

__all__ = ["FINGERPRINT", "ChatAnswer"]

FINGERPRINT = f"puna-{puna.__version__}"


class ChatAnswer:
    """Puts one chat completion together.

    Attributes:
        id: of the completion.
    """

    def __init__(
        self, generation: Generation, tokenizer: Tokenizer, tools: ToolSet | None, body: ChatBody
    ) -> None:
        """Prepare the answer to a request.

        Args:
            generation: computes the choices.
            tokenizer: the model's.
            tools: those that may be called, None for plain text.
            body: the request.
        """
        self.id = new_id("chatcmpl-")
        self._created = int(time.time())
        self._generation = generation
        self._tokenizer = tokenizer
        self._body = body
        stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
        self._parts = [
            AnswerParts(
                tokenizer,
                tools,
                stop_texts=stop,
                allows_several_calls=body.parallel_tool_calls is not False,
            )
            for _ in range(body.n or 1)
        ]
        self._usages: dict[int, Usage] = {}

    async def whole(self) -> ChatCompletion:
        """Wait for all choices."""
        parts: list[list[Part]] = [[] for _ in self._parts]
        logprobs: list[list[TokenLogprob]] = [[] for _ in self._parts]
        async with aclosing(self._arriving()) as arriving:
            async for index, new, event in arriving:
                parts[index] += new
                logprobs[index] += event.logprobs
        return ChatCompletion(
            id=self.id,
            object="chat.completion",
            created=self._created,
            model=self._body.model,
            choices=[self._choice(i, parts[i], logprobs[i]) for i in range(len(parts))],
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
        async with aclosing(self._generation.events()) as events:
            async for index, event in events:
                parts = self._parts[index]
                was_over = parts.end is not None
                new = parts.push(event)
                if parts.end is not None and not event.is_last:
                    self._generation.end(index)
                if event.usage is not None:
                    self._usages[index] = event.usage
                if not was_over:
                    yield index, new, event

    def _more(self, index: int, new: list[Part], event: Event) -> list[ChatChunk]:
        """Chunks for an event: one for each part, log-probabilities with the first."""
        deltas = [_delta(part) for part in new]
        if event.logprobs and self._body.logprobs and not deltas:
            deltas.append(Delta(content=""))
        chunks = []
        for delta in deltas:
            choice = ChunkChoice(index=index, delta=delta, finish_reason=None)
            if self._body.logprobs and delta is deltas[0]:
                choice.logprobs = chat_logprobs(self._tokenizer, event.logprobs)
            chunks.append(self._chunk(choice))
        end = self._parts[index].end
        if end is not None:
            chunks.append(self._chunk(ChunkChoice(index=index, delta=Delta(), finish_reason=end)))
        return chunks

    def _choice(self, index: int, parts: list[Part], logprobs: list[TokenLogprob]) -> ChatChoice:
        text = "".join(part.text for part in parts if isinstance(part, TextDelta))
        calls = _calls(parts)
        message = AnswerMessage(role="assistant", content=text if text or not calls else None, refusal=None)
        if calls:
            message.tool_calls = calls
        end = self._parts[index].end
        assert end is not None, f"choice {index} is not over"
        return ChatChoice(
            index=index,
            message=message,
            logprobs=chat_logprobs(self._tokenizer, logprobs) if self._body.logprobs else None,
            finish_reason=end,
        )

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
        return usage_of([self._usages[i] for i in sorted(self._usages)], n=len(self._parts))


def _delta(part: Part) -> Delta:
    if isinstance(part, TextDelta):
        return Delta(content=part.text)
    if isinstance(part, CallStarted):
        function = FunctionDelta(name=part.name, arguments="")
        call = ToolCallDelta(index=part.index, id=new_id("call_"), type="function", function=function)
    else:
        call = ToolCallDelta(index=part.index, function=FunctionDelta(arguments=part.json))
    return Delta(tool_calls=[call])


def _calls(parts: Sequence[Part]) -> list[ToolCall]:
    calls = []
    for part in parts:
        if isinstance(part, CallStarted):
            arguments = "".join(
                p.json for p in parts if isinstance(p, ArgumentsDelta) and p.index == part.index
            )
            function = FunctionCall(name=part.name, arguments=arguments)
            calls.append(ToolCall(id=new_id("call_"), type="function", function=function))
    return calls
