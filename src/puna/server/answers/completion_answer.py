"""Plain completions: events of a generation to a whole response, or to the events of a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from puna.engine.request import Event, TokenLogprob, Usage
from puna.server.answers.chat_answer import FINGERPRINT
from puna.server.answers.generation import Generation
from puna.server.answers.logprobs import completion_logprobs, prompt_logprobs
from puna.server.answers.passes import score_all
from puna.server.hosting.hosted import Loaded
from puna.server.ids import new_id
from puna.server.schemas.completions import (
    Completion,
    CompletionBody,
    CompletionChoice,
    CompletionLogprobs,
)
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
            generation: computes the choices, `n` for each prompt.
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
        self._usages: dict[int, Usage] = {}
        self._scores: list[list[TokenLogprob]] = []  # of each prompt, where they are told
        self._lengths: dict[int, int] = {}  # characters that each choice has sent

    async def whole(self) -> Completion:
        """Wait for all choices."""
        await self._score()
        answers = await self._generation.completions()
        choices = []
        for index, answer in enumerate(answers):
            first = self._echo(index)
            choice = self._choice(index, Event(text=answer.text, logprobs=answer.logprobs))
            choice.finish_reason = "stop" if answer.finish_reason == "stop" else "length"
            choices.append(choice if first is None else _joined(first, choice))
        completion = self._completion(choices)
        completion.usage = usage_of([answer.usage for answer in answers], n=self._n)
        return completion

    async def chunks(self) -> AsyncGenerator[Completion]:
        """The events of a stream, as they come."""
        await self._score()
        for index in range(len(self._prompts) * self._n):
            first = self._echo(index)
            if first is not None:
                yield self._completion([first])
        async with aclosing(self._generation.events()) as events:
            async for index, event in events:
                choice = self._choice(index, event)
                if event.finish_reason is not None:
                    choice.finish_reason = "stop" if event.finish_reason == "stop" else "length"
                if event.usage is not None:
                    self._usages[index] = event.usage
                if choice.text or choice.logprobs or choice.finish_reason:
                    yield self._completion([choice])
        options = self._body.stream_options
        if options is not None and options.include_usage:
            last = self._completion([])
            last.usage = usage_of([self._usages[i] for i in sorted(self._usages)], n=self._n)
            yield last

    async def _score(self) -> None:
        if self._body.echo and self._body.logprobs is not None:
            deadline = self._generation.deadline
            self._scores = await score_all(self._model, self._prompts, self._client, deadline)

    def _echo(self, index: int) -> CompletionChoice | None:
        """The prompt as the beginning of a choice, None where it was not asked for."""
        if not self._body.echo:
            return None
        place = index // self._n
        ids, given = self._prompts[place], self._body.prompts()[place]
        text = given if isinstance(given, str) else self._tokenizer.decode(ids, show_special=True)
        logprobs = None
        if self._body.logprobs is not None:
            logprobs = prompt_logprobs(self._tokenizer, ids, self._scores[place])
        self._lengths[index] = len(text)
        return CompletionChoice(index=index, text=text, logprobs=logprobs, finish_reason=None)

    def _choice(self, index: int, event: Event) -> CompletionChoice:
        logprobs: CompletionLogprobs | None = None
        start = self._lengths.get(index, 0)
        if self._body.logprobs is not None and event.logprobs:
            logprobs = completion_logprobs(self._tokenizer, event.logprobs, start)
        self._lengths[index] = start + len(event.text)
        return CompletionChoice(index=index, text=event.text, logprobs=logprobs, finish_reason=None)

    def _completion(self, choices: list[CompletionChoice]) -> Completion:
        return Completion(
            id=self._id,
            object="text_completion",
            created=self._created,
            model=self._body.model,
            choices=choices,
            system_fingerprint=FINGERPRINT,
        )


def _joined(first: CompletionChoice, rest: CompletionChoice) -> CompletionChoice:
    logprobs = rest.logprobs
    if first.logprobs is not None and logprobs is not None:
        logprobs = CompletionLogprobs(
            tokens=first.logprobs.tokens + logprobs.tokens,
            token_logprobs=first.logprobs.token_logprobs + logprobs.token_logprobs,
            top_logprobs=first.logprobs.top_logprobs + logprobs.top_logprobs,
            text_offset=first.logprobs.text_offset + logprobs.text_offset,
        )
    return CompletionChoice(
        index=rest.index,
        text=first.text + rest.text,
        logprobs=logprobs or first.logprobs,
        finish_reason=rest.finish_reason,
    )
