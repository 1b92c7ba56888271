"""A server of Puna, seen from the command line."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

import httpx2

from puna.cli.key import environment_key
from puna.constraints.forms import Constraint, JsonSchema, Lark, Regex
from puna.engine.request import Completion, Event, Usage
from puna.errors import ConfigError, ServerError

__all__ = ["RemoteAnswer", "RemoteServer", "checked"]

_CONNECT_S = 5.0
_READ_S = 600.0


class RemoteServer:
    """Asks a server; the key, where one is needed, is that of ``PUNA_API_KEY``."""

    def __init__(self, url: str) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: its base URL, with or without ``http://`` and ``/v1``.

        Raises:
            ConfigError: it is none, or the key is none.
        """
        key = environment_key()
        base = url if "://" in url else f"http://{url}"
        self.url = base.rstrip("/").removesuffix("/v1")
        try:
            self._http = httpx2.Client(
                base_url=f"{self.url}/v1",
                timeout=httpx2.Timeout(_READ_S, connect=_CONNECT_S),
                headers={"Authorization": f"Bearer {key}"} if key else {},
                trust_env=False,  # a proxy does not lead to this machine
            )
        except httpx2.InvalidURL as error:
            raise ConfigError(f"a server's URL is http://HOST[:PORT], got {url!r:.200}: {error}") from error

    def get(self, path: str) -> Any:
        """The JSON of a route.

        Raises:
            ServerError: the server cannot be reached or refuses.
        """
        return self._json("GET", path)

    def post(self, path: str) -> Any:
        """The JSON of a route that does something; raises as `get`."""
        return self._json("POST", path)

    def models(self) -> list[str]:
        """What it serves, the first model first."""
        return [model["id"] for model in self.get("models")["data"]]

    def chat(self, model: str, messages: list[dict[str, str]], options: Mapping[str, Any]) -> RemoteAnswer:
        """An answer to a conversation, as it comes.

        Args:
            model: its name.
            messages: the conversation.
            options: fields of `puna.SamplingParams`; None counts as not given.
        """
        # Drawn here, so that it can be told afterwards.
        seed = options.get("seed")
        given = {name: value for name, value in options.items() if value not in (None, ())}
        constraint = given.pop("constraint", None)
        if constraint is not None:
            given["response_format"] = _response_format(constraint)
        body = {
            **given,
            "model": model,
            "messages": messages,
            "seed": secrets.randbits(62) if seed is None else seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return RemoteAnswer(self, body)

    def stream(self, body: Mapping[str, Any]) -> Any:
        """The response to a chat request, to be read line by line."""
        return self._http.stream("POST", "chat/completions", json=body)

    def unreachable(self, error: Exception) -> ServerError:
        """The error for a server that does not answer."""
        return ServerError(f"no server answers at {self.url} ({error}); start one with `puna serve`")

    def _json(self, method: str, path: str) -> Any:
        try:
            answer = self._http.request(method, path)
        except httpx2.HTTPError as error:
            raise self.unreachable(error) from error
        return checked(answer)


class RemoteAnswer:
    """An answer on its way; reads as `puna.llama.Stream` does."""

    def __init__(self, server: RemoteServer, body: Mapping[str, Any]) -> None:
        """Made by `RemoteServer.chat`; the request is sent when the answer is first read."""
        self._server = server
        self._body = body
        self._texts: list[str] = []
        self._last: Event | None = None
        self._is_cancelled = False

    def __enter__(self) -> Self:
        """Use in a ``with`` block, which cancels what is left at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel."""
        self.cancel()

    def __iter__(self) -> Iterator[Event]:
        """Events as they come.

        Raises:
            ServerError: the server cannot be reached, refuses or fails.
        """
        if self._last is None:
            try:
                with self._server.stream(self._body) as answer:
                    if answer.status_code != 200:
                        answer.read()
                        checked(answer)
                    yield from self._events(answer.iter_lines())
            except httpx2.HTTPError as error:
                raise self._server.unreachable(error) from error

    def cancel(self) -> None:
        """End the answer early; takes effect with its next event."""
        self._is_cancelled = True

    def result(self) -> Completion:
        """Wait for the rest and return the whole answer; tokens and log-probabilities are not told."""
        for _ in self:
            pass
        last = self._last
        if last is None or last.finish_reason is None or last.usage is None:
            raise ServerError("the server ended the answer early")
        return Completion(
            text="".join(self._texts),
            tokens=(),
            logprobs=(),
            finish_reason=last.finish_reason,
            usage=last.usage,
            seed=self._body["seed"],
        )

    def _events(self, lines: Iterator[str]) -> Iterator[Event]:
        begun_s, first_s, n_tokens, reason = time.perf_counter(), 0.0, 0, "length"
        usage: Mapping[str, Any] = {}
        for line in lines:
            data = line.removeprefix("data: ")
            if not data or data == "[DONE]":
                continue
            chunk = json.loads(data)
            if "error" in chunk:
                raise ServerError(f"the server failed: {chunk['error']['message']}")
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                reason = choice["finish_reason"] or reason
                if text := choice["delta"].get("content"):
                    first_s = first_s or time.perf_counter()
                    n_tokens += 1
                    self._texts.append(text)
                    yield Event(text=text)
            if self._is_cancelled:
                reason = "cancelled"
                break
        now_s = time.perf_counter()
        told = Usage(
            prompt_tokens=usage.get("prompt_tokens", 0),
            cached_tokens=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
            completion_tokens=usage.get("completion_tokens", n_tokens),
            time_to_first_token_s=(first_s or now_s) - begun_s,
            decode_s=now_s - (first_s or now_s),
        )
        self._last = Event(finish_reason=reason, usage=told)  # type: ignore[arg-type]
        yield self._last


def _response_format(constraint: Constraint) -> dict[str, Any]:
    """A constraint as the server takes it."""
    if isinstance(constraint, JsonSchema):
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": constraint.values}}
    if isinstance(constraint, Regex):
        return {"type": "regex", "regex": constraint.pattern}
    if isinstance(constraint, Lark):
        return {"type": "grammar", "grammar": constraint.grammar}
    return {"type": "choices", "choices": list(constraint.texts)}


def checked(answer: httpx2.Response) -> Any:
    """The JSON of a response.

    Raises:
        ServerError: it is an error, or no JSON.
    """
    try:
        value = answer.json()
    except ValueError as error:
        raise ServerError(f"{answer.url} does not answer as a server of Puna does") from error
    if answer.status_code != 200:
        raise ServerError(f"the server refuses: {value['error']['message']}")
    return value
