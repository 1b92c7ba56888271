"""Plain completions: events of a generation to a whole response, or to the events of a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Literal

from puna.engine.request import Event, Usage
from puna.server.answers.chat_answer import FINGERPRINT
from puna.server.answers.generation import Generation
from puna.server.answers.logprobs import completion_logprobs, prompt_logprobs
from puna.server.answers.passes import score_all
from puna.server.answers.text_offsets import TextOffsets
from puna.server.errors import about
from puna.server.hosting.hosted import Loaded
from puna.server.ids import new_id
from puna.server.schemas.completions import (
    Completion,
    CompletionBody,
    CompletionChoice,
    CompletionLogprobs,
)
from puna.server.schemas.usage import Usage as WireUsage
from puna.server.schemas.usage import usage_of

__all__ = ["CompletionAnswer"]


class CompletionAnswer:
    """Puts one completion of one or several prompts together; a prompt's choices stand side by side."""

    def __init__(
        self,
        generation: Generation,
        model: Loaded,
        prompts: Sequence[Sequence[int]],
        body: CompletionBody,
        *,
        client: str,
    ) -> None:
        """Prepare the answer to a request.

        Args:
            generation: computes the choices, `n` for each prompt; nothing where `max_tokens` is 0.
            model: what computes.
            prompts: ids of each prompt.
            body: the request.
            client: who asks, for fair turns.
        """
        self._id = new_id("cmpl-")
        self._created = int(time.time())
        self._generation = generation
        self._model = model
        self._client = client
        self._tokenizer = model.llama.tokenizer
        self._prompts = prompts
        self._body = body
        self._n = body.n or 1
        self._n_choices = len(prompts) * self._n
        self._usages: dict[int, Usage] = {}
        self._scores: list[CompletionLogprobs] = []  # of each prompt, where they are told
        self._offsets = [TextOffsets(self._tokenizer) for _ in range(self._n_choices)]

    async def whole(self) -> Completion:
        """Wait for all choices."""
        choices: dict[int, CompletionChoice] = {}
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                if piece.index in choices:
                    _extend(choices[piece.index], piece)
                else:
                    choices[piece.index] = piece
        completion = self._completion([choices[index] for index in sorted(choices)])
        completion.usage = self._usage()
        return completion

    async def chunks(self) -> AsyncGenerator[Completion]:
        """The events of a stream, as they come."""
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                yield self._completion([piece])
        options = self._body.stream_options
        if options is not None and options.include_usage:
            last = self._completion([])
            last.usage = self._usage()
            yield last

    async def _pieces(self) -> AsyncGenerator[CompletionChoice]:
        """The beginnings of choices and what follows."""
        await self._score()
        for index in range(self._n_choices if self._body.echo else 0):
            yield self._echo(index)
        async with aclosing(self._generation.events()) as events:
            async for index, event in events:
                choice = self._choice(index, event)
                if choice.text or choice.logprobs or choice.finish_reason:
                    yield choice
        for index in range(self._n_choices if self._body.max_tokens == 0 else 0):  # nothing was generated
            usage = _unused(self._prompts[index // self._n])
            yield self._choice(index, Event(finish_reason="length", usage=usage))

    def _usage(self) -> WireUsage:
        return usage_of([self._usages[index] for index in sorted(self._usages)], n=self._n)

    async def _score(self) -> None:
        if self._body.echo and self._body.logprobs is not None:
            with about("prompt"):
                found = await score_all(
                    self._model, self._prompts, self._client, self._generation.deadline, self._body.logprobs
                )
            for ids, given, scores in zip(self._prompts, self._body.prompts(), found, strict=True):
                offsets = TextOffsets(self._tokenizer, show_special=not isinstance(given, str))
                told = await asyncio.to_thread(prompt_logprobs, self._tokenizer, ids, scores, offsets)
                self._scores.append(told)

    def _echo(self, index: int) -> CompletionChoice:
        """The prompt as the beginning of a choice."""
        place = index // self._n
        ids, given = self._prompts[place], self._body.prompts()[place]
        text = given if isinstance(given, str) else self._tokenizer.decode(ids, show_special=True)
        logprobs = None
        if self._body.logprobs is not None:
            logprobs = _copy(self._scores[place])  # it grows with the choice
        self._offsets[index] = TextOffsets(self._tokenizer, len(text))
        return CompletionChoice(index=index, text=text, logprobs=logprobs, finish_reason=None)

    def _choice(self, index: int, event: Event) -> CompletionChoice:
        if event.usage is not None:
            self._usages[index] = event.usage
        logprobs: CompletionLogprobs | None = None
        entries = [*event.logprobs, *([event.stop_logprob] if event.stop_logprob is not None else [])]
        if self._body.logprobs is not None and entries:
            logprobs = completion_logprobs(self._tokenizer, entries, self._offsets[index])
        reason: Literal["stop", "length"] | None = None
        if event.finish_reason is not None:
            reason = "stop" if event.finish_reason == "stop" else "length"
        return CompletionChoice(index=index, text=event.text, logprobs=logprobs, finish_reason=reason)

    def _completion(self, choices: list[CompletionChoice]) -> Completion:
        return Completion(
            id=self._id,
            object="text_completion",
            created=self._created,
            model=self._body.model,
            choices=choices,
            system_fingerprint=FINGERPRINT,
        )


def _copy(told: CompletionLogprobs) -> CompletionLogprobs:
    return told.model_copy(update={name: list(values) for name, values in told})


def _extend(choice: CompletionChoice, more: CompletionChoice) -> None:
    choice.text += more.text
    choice.finish_reason = more.finish_reason
    if choice.logprobs is None or more.logprobs is None:
        choice.logprobs = choice.logprobs or more.logprobs
        return
    choice.logprobs.tokens += more.logprobs.tokens
    choice.logprobs.token_logprobs += more.logprobs.token_logprobs
    choice.logprobs.top_logprobs += more.logprobs.top_logprobs
    choice.logprobs.text_offset += more.logprobs.text_offset


def _unused(prompt: Sequence[int]) -> Usage:
    """What a prompt cost that nothing was generated from."""
    return Usage(
        prompt_tokens=len(prompt),
        cached_tokens=0,
        completion_tokens=0,
        time_to_first_token_s=0.0,
        decode_s=0.0,
    )
