"""The answers that a conversation gets: parts as they come, of one choice or of several side by side.

What every wire format of a conversation is made of; `chat_answer.py` shows how.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from puna.engine.request import Event, Usage
from puna.prompt.tool_schema import ToolSet
from puna.server.answers.generation import Generation
from puna.server.answers.parts import AnswerParts, EndReason, Part
from puna.tokens import Tokenizer

__all__ = ["Choices"]


class Choices:
    """Runs a generation and takes its answers apart.

    Attributes:
        tokenizer: the model's.
        n_prompt_tokens: length of the prompt.
        usages: what each choice cost, by its index, once it is over.
    """

    def __init__(
        self,
        generation: Generation,
        tokenizer: Tokenizer,
        tools: ToolSet | None,
        *,
        n: int,
        n_prompt_tokens: int,
        stop_texts: Sequence[str],
        allows_several_calls: bool,
        must_call: bool,
    ) -> None:
        """Prepare the answers to a conversation.

        Args:
            generation: computes them.
            tokenizer: the model's.
            tools: those that may be called, None for plain text.
            n: how many they are.
            n_prompt_tokens: length of the prompt.
            stop_texts: texts that end an answer.
            allows_several_calls: whether an answer goes on behind its first call.
            must_call: whether an answer is held to calls and nothing else.
        """
        self.tokenizer = tokenizer
        self.n_prompt_tokens = n_prompt_tokens
        self.usages: dict[int, Usage] = {}
        self._generation = generation
        self._parts = [
            AnswerParts(
                tokenizer,
                tools,
                stop_texts=stop_texts,
                allows_several_calls=allows_several_calls,
                must_call=must_call,
            )
            for _ in range(n)
        ]

    def __len__(self) -> int:
        return len(self._parts)

    def end(self, index: int) -> EndReason | None:
        """Why a choice ended, None while it goes on."""
        return self._parts[index].end

    async def arriving(self) -> AsyncGenerator[tuple[int, list[Part], Event]]:
        """Index of a choice, its new parts, and the event that brought them."""
        async with aclosing(self._generation.events()) as events:
            async for index, event in events:
                parts = self._parts[index]
                was_over = parts.end is not None
                new = parts.push(event)
                if parts.end is not None and not event.is_last:
                    self._generation.end(index)
                if event.usage is not None:
                    self.usages[index] = event.usage
                if not was_over:
                    yield index, new, event
