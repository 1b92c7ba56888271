"""Errors as clients see them: OpenAI's shape, and no word about this machine.

What a client did wrong is told in full. What went wrong here is told by its kind; paths and causes are in
the log, under the request's id.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from puna.errors import (
    CapacityError,
    ConfigError,
    ConstraintError,
    PromptFormatError,
    PunaError,
    StateError,
    TokenizerError,
)
from puna.server.watch.log import log, log_error

__all__ = [
    "ApiError",
    "about",
    "as_api_error",
    "error_body",
    "error_response",
    "failed",
    "install_handlers",
    "respond_to",
    "shutting_down",
]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
_ANTHROPIC = ("/v1/messages", "/v1/openai/v1/messages")
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_TOO_LONG = "context_length_exceeded"
_UNENFORCEABLE = "invalid_constraint"
# What an error is about that nothing below the routes has a name for, since it is `messages` and
# `response_format` to most clients; by route, what others call it.
_FIELDS = {_TOO_LONG: "messages", _UNENFORCEABLE: "response_format"}
_OTHER_FIELDS = {
    "/completions": {_TOO_LONG: "prompt"},
    "/embeddings": {_TOO_LONG: "input"},
    "/responses": {_TOO_LONG: "input", _UNENFORCEABLE: "text.format"},
    "/responses/input_tokens": {_UNENFORCEABLE: "text.format"},
    "/responses/compact": {_TOO_LONG: "input"},
}
_CLIENT_IS_GONE = 499  # nginx's word for it
# What the client's own request brought about; the messages speak of nothing else.
_CLIENT_ERRORS = (CapacityError, ConfigError, PromptFormatError, TokenizerError)


class ApiError(HTTPException):
    """An error that a client is told of.

    Attributes:
        message: what is wrong and what to do.
        code: a word for programs.
        param: the field of the body that is wrong.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Make an error.

        Args:
            status: of HTTP.
            message: for people.
            code: for programs.
            param: field of the body.
            headers: more headers of the response.
        """
        super().__init__(status, message, dict(headers or {}))
        self.message = message
        self.code = code
        self.param = param

    def body(self) -> dict[str, Any]:
        """The error as JSON values; absent keys rather than empty ones, but for those OpenAI always has."""
        kind = _TYPES.get(self.status_code, "server_error" if self.status_code >= 500 else _TYPES[400])
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code},
        }


def shutting_down() -> ApiError:
    """What those are told that wait when the server ends."""
    return ApiError(503, "the server is shutting down; ask another, or later", code="shutting_down")


def failed() -> ApiError:
    """What those are told whose request met a fault of ours, which is in the log."""
    return ApiError(500, "the server failed; its log has the reason under this request's id")


@contextmanager
def about(param: str | None, *, missing: str | None = None) -> Iterator[None]:
    """Have what is wrong with a request in a ``with`` block name a field, unless it names one itself.

    Args:
        param: the field that the block looks at.
        missing: the code where what the field names is not there.

    Raises:
        ApiError: what was raised, if it is about the request.
    """
    try:
        yield
    except (ApiError, *_CLIENT_ERRORS) as error:
        told = as_api_error(error)
        if told.status_code in (400, 404):
            told.param = told.param or param
        if told.status_code == 404:
            told.code = told.code or missing
        raise told from None


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of any error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, CapacityError):
        return ApiError(400, str(error), code=_TOO_LONG)
    if isinstance(error, ConstraintError):
        return ApiError(400, str(error), code=_UNENFORCEABLE)
    if isinstance(error, _CLIENT_ERRORS):
        return ApiError(400, str(error))
    if isinstance(error, StateError):
        log("state_failed", error=str(error))
        return ApiError(
            503, "what the server keeps cannot be had; its log has the reason", code="state_unavailable"
        )
    log_error(error)
    return failed()


def error_body(error: ApiError, scope: Scope) -> dict[str, Any]:
    """The error as JSON values, in the shape of the API that a request speaks.

    Args:
        error: the error.
        scope: of the request.
    """
    if not scope["path"].startswith(_ANTHROPIC):
        body = error.body()
        if error.param is None and error.code in _FIELDS:
            names = _FIELDS | _OTHER_FIELDS.get(scope["route"].path, {})
            body["error"]["param"] = names[error.code]
        return body
    kind = _ANTHROPIC_TYPES.get(error.status_code, "api_error")
    kind = "invalid_request_error" if kind == "api_error" and error.status_code < 500 else kind
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def error_response(error: ApiError, scope: Scope) -> Response:
    """The error as a response to a request."""
    # Escaped, since what a client sent may stand in it, half a surrogate pair included.
    body = json.dumps(error_body(error, scope))
    return Response(body, error.status_code, dict(error.headers or {}), media_type="application/json")


def install_handlers(app: FastAPI) -> None:
    """Have an app answer every error in OpenAI's shape."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, _on_fault)


async def respond_to(request: Request, error: Exception) -> Response:
    """The response to a request that failed.

    Raises:
        Exception: the error itself, where it is none that clients are told of.
    """
    for kind, handler in _HANDLERS.items():
        if isinstance(error, kind):
            return await handler(request, error)
    raise error


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first, *others = error.errors()
    # Where a field may have several forms each form has complaints. The one whose type the value has was
    # meant, or else the one that got furthest.
    alike = [each for each in others if each["loc"][:2] == first["loc"][:2]]
    first = max([first, *alike], key=lambda each: (not _is_another_form(each), len(each["loc"])))
    param = _param(first, error.body)
    message = f"{param}: {_said(first)}" if param else _said(first)
    return error_response(ApiError(400, message[:1000], param=param[:200] or None), request.scope)


def _is_another_form(wrong: Mapping[str, Any]) -> bool:
    """Whether something is wrong since the value is of another type; one of some words must be a text."""
    is_no_word = wrong["type"] == "literal_error" and not isinstance(wrong["input"], str)
    return is_no_word or str(wrong["type"]).endswith("_type")


def _said(wrong: Mapping[str, Any]) -> str:
    """What is wrong, for clients; where pydantic does not say what it got, or names a function of ours."""
    if wrong["type"] == "union_tag_invalid":
        return f"must be of type {wrong['ctx']['expected_tags']}, got {wrong['ctx']['tag']!r:.60}"
    if wrong["type"] == "union_tag_not_found":
        return "must have a `type`"
    said = str(wrong["msg"]).removeprefix("Value error, ")
    return f"{said}, got {wrong['input']!r:.60}" if wrong["type"] == "literal_error" else said


def _param(wrong: Mapping[str, Any], body: Any) -> str:
    """Where in the client's body, or in its query, something is wrong: `messages[0].content[1].text`."""
    source, *steps = wrong["loc"]
    if source != "body":
        return ".".join(map(str, steps))
    missing = [steps.pop()] if wrong["type"] == "missing" and steps else []
    where = _own_steps(body, steps, [wrong["input"]])
    if where is None:  # what is wrong is a key, or was changed before it was looked at
        where = _own_steps(body, steps, None) or steps[:1]  # a field may be wrong for not being there
    return "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in [*where, *missing]
    ).removeprefix(".")


def _own_steps(value: Any, steps: Sequence[int | str], wanted: list[Any] | None) -> list[int | str] | None:
    """The steps that lead through a body; others are pydantic's, for the forms that a field may have.

    Args:
        value: the body, or what is left of it.
        steps: the client's and pydantic's.
        wanted: alone in a list, what they lead to; None: anything.

    Returns:
        None where they do not lead to what is wanted.
    """
    if not steps:
        return [] if wanted is None or value == wanted[0] else None
    step, *rest = steps
    is_inside = (isinstance(value, dict) and step in value) or (
        isinstance(value, list) and isinstance(step, int) and step < len(value)
    )
    if is_inside and (inner := _own_steps(value[step], rest, wanted)) is not None:
        return [step, *inner]
    return _own_steps(value, rest, wanted)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, ApiError):
        return error_response(error, request.scope)
    message = str(error.detail)
    if error.status_code == 404:
        message = f"there is no route {request.method} {request.url.path[:200]}"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    return error_response(ApiError(error.status_code, message, headers=headers), request.scope)


def _methods(request: Request) -> list[str]:
    """The methods of a path. A route has one of them, and the framework tells of the first route only."""
    routes: list[BaseRoute] = request.app.routes
    return [
        method
        for method in ("DELETE", "GET", "POST", "PUT")
        if any(each.matches({**request.scope, "method": method})[0] is Match.FULL for each in routes)
    ]


async def _on_error(request: Request, error: Exception) -> Response:
    return error_response(as_api_error(error), request.scope)


async def _on_fault(request: Request, _: Exception) -> Response:
    return error_response(failed(), request.scope)  # it is raised on behind this, and logged


async def _on_disconnect(_: Request, __: Exception) -> Response:
    return Response(status_code=_CLIENT_IS_GONE)  # for the log; nobody reads it


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    RequestValidationError: _on_validation_error,
    HTTPException: _on_http_error,
    PunaError: _on_error,
    ClientDisconnect: _on_disconnect,
}
