"""Bodies are JSON and nothing that merely passes for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from puna.errors import CheckpointError
from puna.models.files import parse_json_object
from puna.server.errors import ApiError

__all__ = ["StrictRequest", "StrictRoute", "check_counts"]

_QUICK_BYTES = 65_536  # are parsed in a millisecond or two
_MAX_KEYS = 4096  # of one object; unknown ones are told one by one
# What a body may have so many of, and how an error names it. Each object or list takes some 600 bytes and
# 3 us of the event loop; 4,096 messages, each with a call or a part in it, have half as many. Token ids take
# less, but are read in one go, which holds up everybody.
_LIMITS = (
    (b"{[", 32_768, "objects and lists", "too_many_objects"),
    (b",", 262_144, "commas between values", "too_many_values"),
)


class StrictRequest(Request):
    """A request whose JSON body is read strictly."""

    async def body(self) -> bytes:
        """The whole body; most come in one piece, for which Starlette's own way is long.

        Raises:
            ClientDisconnect: the client went away before its end.
        """
        if not hasattr(self, "_body"):
            pieces, is_whole = [], False
            while not is_whole:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                pieces.append(message.get("body", b""))
                is_whole = not message.get("more_body", False)
            self._body = b"".join(pieces)
        return self._body

    async def json(self) -> Any:
        """The body; an error where it is too deep or large, has a key twice or infinity, or is no object."""
        if not hasattr(self, "_json"):
            body = await self.body()
            try:
                if len(body) <= _QUICK_BYTES:
                    self._json = _parsed(body)
                else:
                    self._json = await asyncio.to_thread(_parsed, body)
            except UnicodeDecodeError as error:
                said = f"the body must be UTF-8, and its byte {error.start} is not; encode the text as UTF-8"
                raise ApiError(400, said, code="invalid_json") from error
            except CheckpointError as error:
                raise ApiError(400, str(error)[:500], code="invalid_json") from error
        return self._json


def check_counts(texts: Sequence[bytes], what: str) -> None:
    """Look at JSON before anything is made of it.

    Args:
        texts: all that a request has of it.
        what: has it, for the message.

    Raises:
        ApiError: 400, there are too many objects and lists, or values.
    """
    for signs, most, counted, code in _LIMITS:
        found = sum(text.count(sign) for text in texts for sign in signs)
        if found > most:
            found = sum(_count(text, signs) for text in texts)
        if found > most:
            raise ApiError(
                400, f"{what} may have {most} {counted}, got {found}; send less in one request", code=code
            )


def _parsed(body: bytes) -> dict[str, Any]:
    check_counts([body], "a body")
    return parse_json_object(body.decode("utf-8"), "the body", _MAX_KEYS, parse_float=_finite)


def _count(text: bytes, signs: bytes) -> int:
    """How many of some signs JSON has, without reading it; those in texts do not count."""
    plain = text.replace(rb"\\", b"").replace(rb"\"", b"")  # what is left of quotes begins and ends texts
    letters = np.frombuffer(plain, dtype=np.uint8)
    in_text = np.bitwise_xor.accumulate(letters == ord('"'))
    return int(np.count_nonzero(np.isin(letters, list(signs)) & ~in_text))


def _finite(text: str) -> float:
    """A number. What is larger than all would be kept and sent as `Infinity`, which is no JSON."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number must be finite, got {text:.60}")
    return number


class StrictRoute(APIRoute):
    """A route whose JSON body is read strictly; for ``APIRouter(route_class=...)``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict
