"""The Python API: load a model, talk to it, complete text, embed it.

>>> import puna
>>> llama = puna.load("smollm2-135m-instruct")
>>> for event in llama.chat([puna.User("Why do llamas hum?")], max_tokens=64):
...     print(event.text, end="")
"""

from __future__ import annotations

import queue
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from puna.engine.native import NativeEngine
from puna.engine.protocol import Engine
from puna.engine.request import Completion, Event, Request, SamplingOptions, SamplingParams
from puna.errors import ConfigError, EngineError
from puna.models.checkpoint import Checkpoint
from puna.models.config import ModelConfig
from puna.models.local import open_model
from puna.models.packed import PackedModel, pack_checkpoint
from puna.models.packed import Progress as PackProgress
from puna.models.store import Progress
from puna.prompt import Message, as_messages, chat_format
from puna.tokens import Tokenizer

if TYPE_CHECKING:
    import asyncio

__all__ = ["AsyncStream", "Llama", "ModelInfo", "Stream", "load"]

Prompt = str | Sequence[int]
Messages = Sequence[Message | Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """What was loaded.

    Attributes:
        name: the model's name.
        path: where it lies.
        kind: ``GGUF``, ``Hugging Face``, ``Meta`` or ``Puna``.
        formats: how many matrices are in each packed format.
        cache: how keys and values are kept: ``f32``, ``f16`` or ``int8``.
        weight_bytes: bytes of all weights as the engine has them.
        weight_bytes_per_token: those of them that decoding one token reads.
        cache_bytes_per_token: bytes of keys and values that a position takes, and that every later token
            reads.
        chat_format: ``llama3``, ``template`` or ``base``.
    """

    name: str
    path: str
    kind: str
    formats: dict[str, int]
    cache: str
    weight_bytes: int
    weight_bytes_per_token: int
    cache_bytes_per_token: int
    chat_format: str


def load(
    name: str,
    *,
    format: str = "auto",
    threads: int | None = None,
    context: int | None = None,
    cache: str = "auto",
    speculation: str = "lookup",
    cache_tokens: int | None = None,
    draft: str | None = None,
    fetching: Progress | None = None,
    packing: PackProgress | None = None,
) -> Llama:
    """Load a model, fetching it first where it is in the catalogue and not yet on this machine.

    Args:
        name: a catalogue name (``smollm2-135m-instruct``) or the path of a checkpoint.
        format: ``auto`` (what the file has, as near as the engine has it), ``f32``, ``bf16``, ``int8``
            or ``int4``; see `puna.models.packed.weight_format`.
        threads: threads that compute; default: the CPUs this process may use. Results do not depend
            on it.
        context: tokens that a prompt and its answer may take; default: the model's own, at most 8192.
        cache: how keys and values are kept: ``auto``, ``f32``, ``f16`` or ``int8``, which takes half of
            the memory of ``f16`` and makes long contexts faster; see `puna.models.cache.cache_format`.
        speculation: ``lookup`` guesses tokens that followed the last ones where they came before, and checks
            the guesses in one step; ``off`` guesses none. Answers are the same, only the speed differs.
        cache_tokens: tokens of all requests that run at once; default: 4 contexts.
        draft: name or path of a smaller model of the same vocabulary, which guesses in place of a look-up.
        fetching: is told about a download; default: nothing is printed.
        packing: is told about the conversion of weights.

    Raises:
        UnknownModelError: there is no such model.
        StoreError: it cannot be fetched or stored.
        CheckpointError: it is damaged or of a kind that is not supported.
        ConfigError: a setting is out of range, or the draft model has another vocabulary.
    """
    found = open_model(name, format, fetching, packing)
    model = pack_checkpoint(found.checkpoint, format, packing)
    return Llama(
        found.name,
        found.checkpoint,
        model,
        chat_format_name=found.chat_format,
        threads=threads,
        context=context,
        cache=cache,
        speculation=speculation,
        cache_tokens=cache_tokens,
        draft=None if draft is None else open_model(draft, "auto", fetching, packing).checkpoint,
    )


class Llama:
    """A loaded model. Safe to use from several threads; requests made at once run at once.

    Attributes:
        config: the architecture.
        tokenizer: text to ids and back.
        chat_format: messages to ids.
        engine: what computes.
        info: what was loaded.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    engine: Engine
    info: ModelInfo

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        model: PackedModel,
        *,
        chat_format_name: str | None = None,
        threads: int | None = None,
        context: int | None = None,
        cache: str = "auto",
        speculation: str = "lookup",
        cache_tokens: int | None = None,
        draft: Checkpoint | None = None,
    ) -> None:
        """Put a model together; `load` is the usual way to get one.

        Args:
            name: for people.
            checkpoint: where vocabulary and chat format come from.
            model: packed weights.
            chat_format_name: see `puna.prompt.chat_format`; None finds it by what the vocabulary has.
            threads: see `load`.
            context: see `load`.
            cache: see `load`.
            speculation: see `load`.
            cache_tokens: see `load`.
            draft: the draft model of `load`.

        Raises:
            ConfigError: a setting is out of range, or the draft model has another vocabulary.
        """
        vocabulary = checkpoint.vocabulary()
        self.config = model.config
        self.tokenizer = Tokenizer(vocabulary)
        self.chat_format = chat_format(vocabulary, self.tokenizer, chat_format_name)
        engine = self.engine = NativeEngine(
            model,
            self.tokenizer,
            context_tokens=context,
            n_threads=threads,
            cache=cache,
            speculation=speculation,
            cache_tokens=cache_tokens,
            draft=None if draft is None else self._draft(draft),
        )
        formats = [matrix.format for matrix in model.matrices.values()]
        self.info = ModelInfo(
            name=name,
            path=str(checkpoint.path),
            kind=checkpoint.kind,
            formats={f: formats.count(f) for f in dict.fromkeys(formats)},
            cache=engine.cache,
            weight_bytes=model.n_bytes,
            weight_bytes_per_token=model.n_bytes_per_token,
            cache_bytes_per_token=engine.cache_bytes_per_token,
            chat_format=self.chat_format.name,
        )
        # The engine's thread holds the engine, not this object: it ends when the last user lets go.
        self._finalizer = weakref.finalize(self, self.engine.close)

    def chat(self, messages: Messages, **options: Unpack[SamplingOptions]) -> Stream:
        """Answer a conversation.

        Args:
            messages: `System`, `User`, `Assistant` and `Tool` messages, or ``{"role", "content"}``
                mappings of the same.
            **options: see `SamplingParams`.

        Returns:
            A stream of events; ``.result()`` waits for the whole answer.

        Raises:
            PromptFormatError: a message is not one, or the model has no chat format.
            CapacityError: the conversation does not fit the context.
            ConfigError: an option is out of range.
        """
        return self.stream(self.encode_chat(messages), **options)

    def stream(self, prompt: Prompt, **options: Unpack[SamplingOptions]) -> Stream:
        """Complete a text (or token ids), token by token.

        Args:
            prompt: text, encoded as `ChatFormat.encode_text` does, or ids, taken as they are.
            **options: see `SamplingParams`.

        Raises:
            CapacityError: the prompt does not fit the context.
            ConfigError: an option is out of range, or the prompt is empty.
        """
        stream = Stream(self)
        stream._start(self._ids(prompt), SamplingParams(**options))
        return stream

    @overload
    def generate(self, prompt: Prompt, **options: Unpack[SamplingOptions]) -> Completion: ...
    @overload
    def generate(self, prompt: list[str], **options: Unpack[SamplingOptions]) -> list[Completion]: ...
    def generate(
        self, prompt: Prompt | list[str], **options: Unpack[SamplingOptions]
    ) -> Completion | list[Completion]:
        """Complete a text, or several at once, and wait for the end.

        Args:
            prompt: as in `stream`; a list of texts gives a list of completions in the same order.
            **options: see `SamplingParams`.
        """
        if isinstance(prompt, list) and all(isinstance(text, str) for text in prompt):
            streams = [self.stream(text, **options) for text in prompt]
            return [stream.result() for stream in streams]
        return self.stream(prompt, **options).result()  # type: ignore[arg-type]

    def chat_async(self, messages: Messages, **options: Unpack[SamplingOptions]) -> AsyncStream:
        """`chat` for asyncio: iterate with ``async for``, or await ``.result()``."""
        return self.stream_async(self.encode_chat(messages), **options)

    def stream_async(self, prompt: Prompt, **options: Unpack[SamplingOptions]) -> AsyncStream:
        """`stream` for asyncio; to be called in a running event loop."""
        stream = AsyncStream(self)
        stream._start(self._ids(prompt), SamplingParams(**options))
        return stream

    def embed(self, texts: str | Sequence[str], *, normalize: bool = True) -> NDArray[np.float32]:
        """Turn texts into vectors: the mean of the final hidden states over a text's tokens.

        Args:
            texts: one text or several.
            normalize: scale each vector to length 1, so that a dot product is a cosine.

        Returns:
            ``[texts, dim]``, float32; one row for a single text too.

        Raises:
            CapacityError: a text does not fit the context.
            ConfigError: a text is empty.
        """
        several = [texts] if isinstance(texts, str) else list(texts)
        passes = [self.engine.embed(self.chat_format.encode_text(text)) for text in several]
        vectors = np.array([each.result() for each in passes], np.float32).reshape(-1, self.config.dim)
        if normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def encode_chat(self, messages: Messages) -> list[int]:
        """Token ids of a conversation, ready for the answer."""
        return self.chat_format.encode_chat(as_messages(messages))

    def close(self) -> None:
        """End all requests and free the engine; done for you when nothing refers to this object."""
        self._finalizer()

    def __enter__(self) -> Llama:
        """Use in a ``with`` block, which closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _draft(self, draft: Checkpoint) -> PackedModel:
        if not self.tokenizer.has_tokens_of(Tokenizer(draft.vocabulary())):
            raise ConfigError(
                f"the draft model {draft.path.name} needs the vocabulary of {self.config.vocab_size} tokens "
                "that the model has, and has other ones; take a smaller model of the same family"
            )
        return pack_checkpoint(draft, "auto")

    def _ids(self, prompt: Prompt) -> Sequence[int]:
        return self.chat_format.encode_text(prompt) if isinstance(prompt, str) else prompt


class _Answer:
    """What both kinds of stream gather from the events that pass through them."""

    def __init__(self, llama: Llama) -> None:
        # Keeps the model alive for as long as its answer is wanted.
        self._llama = llama
        self._request: Request | None = None
        self._events: list[Event] = []

    def cancel(self) -> None:
        """End the answer early; the last event says ``cancelled``."""
        if self._request is not None and not self._is_over:
            self._llama.engine.cancel(self._request)

    def _submit(self, prompt: Sequence[int], params: SamplingParams, sink: Any) -> None:
        self._request = Request(
            prompt=prompt, params=params, stop_ids=self._llama.chat_format.stop_ids, sink=sink
        )
        self._llama.engine.submit(self._request)

    @property
    def _is_over(self) -> bool:
        return bool(self._events) and self._events[-1].is_last

    def _take(self, event: Event) -> Event:
        self._events.append(event)
        if event.error is not None:
            raise event.error
        return event

    def _completion(self) -> Completion:
        last = self._events[-1]
        if last.error is not None:
            raise last.error
        if last.finish_reason is None or last.usage is None or self._request is None:
            raise EngineError("the answer was not read to its end; iterate on or call `result()`")
        return Completion(
            text="".join(event.text for event in self._events),
            tokens=tuple(token for event in self._events for token in event.tokens),
            logprobs=tuple(logprob for event in self._events for logprob in event.logprobs),
            finish_reason=last.finish_reason,
            usage=last.usage,
            seed=self._request.seed,
        )


class Stream(_Answer):
    """An answer on its way: iterate for events, or wait for all of it with `result`.

    Leaving the loop early does not end the answer; `cancel` or the end of a ``with`` block does.
    """

    def __init__(self, llama: Llama) -> None:
        """Made by `Llama.stream` and `Llama.chat`."""
        super().__init__(llama)
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def _start(self, prompt: Sequence[int], params: SamplingParams) -> None:
        self._submit(prompt, params, self._queue.put)

    def __iter__(self) -> Iterator[Event]:
        """Events as they come; raises where the engine failed."""
        while not self._is_over:
            yield self._take(self._queue.get())

    def result(self) -> Completion:
        """Wait for the rest and return the whole answer, what was iterated over before included."""
        for _ in self:
            pass
        return self._completion()

    def __enter__(self) -> Stream:
        """Use in a ``with`` block, which cancels what is left at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel."""
        self.cancel()


class AsyncStream(_Answer):
    """`Stream` for asyncio. A cancelled task cancels its answer."""

    def __init__(self, llama: Llama) -> None:
        """Made by `Llama.stream_async` and `Llama.chat_async` in a running event loop."""
        import asyncio  # costs a sixth of all that is loaded, and most programs make no such stream

        super().__init__(llama)
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    def _start(self, prompt: Sequence[int], params: SamplingParams) -> None:
        def sink(event: Event) -> None:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

        self._submit(prompt, params, sink)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Events as they come; raises where the engine failed."""
        try:
            while not self._is_over:
                yield self._take(await self._queue.get())
        finally:
            self.cancel()

    async def result(self) -> Completion:
        """Wait for the rest and return the whole answer."""
        async for _ in self:
            pass
        return self._completion()
