"""Routes that are served without FastAPI's way to them say the same as with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import Field
from starlette.types import Receive, Scope, Send

from puna.errors import ConfigError
from puna.server.door.busy import ANSWERING
from puna.server.errors import ApiError, install_handlers
from puna.server.routes import ROUTERS
from puna.server.schemas.base import Body
from puna.server.wire.direct import DirectRoutes
from puna.server.wire.strict import StrictRoute


class Asked(Body):
    name: str = Field(min_length=1)
    sizes: list[int] = Field(default_factory=list, max_length=9, fail_fast=True)


async def _caller(request: Request) -> str:
    return request.headers.get("x-caller", "nobody")


router = APIRouter(route_class=StrictRoute)


@router.post("/echo", response_model=Asked)
async def echo(request: Request, body: Asked, caller: Annotated[str, Depends(_caller)]) -> Response:
    match body.name:
        case "config":
            raise ConfigError("a setting is wrong")
        case "api":
            raise ApiError(429, "too many", headers={"Retry-After": "3"})
        case "fails":
            raise RuntimeError("not for clients")
    response = Response(body.model_dump_json(), media_type="application/json")
    response.headers["x-seen"] = f"{caller} {request.method} {request.scope['route'].path}"
    return response


@pytest.fixture(params=[False, True], ids=["fastapi", "direct"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    install_handlers(app)
    if request.param:
        (route,) = router.routes
        assert isinstance(route, APIRoute)
        app.add_middleware(DirectRoutes, routes={"/v1/echo": route})
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://here") as made:
        yield made


async def test_a_function_gets_request_body_and_dependencies(client: httpx2.AsyncClient) -> None:
    body = {"name": "a", "sizes": [1, 2]}
    answer = await client.post("/v1/echo", json=body, headers={"x-caller": "me"})
    assert (answer.status_code, answer.json()) == (200, body)
    assert answer.headers["x-seen"] == "me POST /echo"


WRONG = {
    "missing": ({"sizes": []}, "name"),
    "unknown": ({"name": "a", "nom": 1}, "nom"),
    "not_converted": ({"name": 3}, "name"),
    "inside": ({"name": "a", "sizes": [1, "2"]}, "sizes[1]"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_bodies(client: httpx2.AsyncClient, name: str) -> None:
    body, param = WRONG[name]
    answer = await client.post("/v1/echo", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"].startswith(f"{param}: ")


@pytest.mark.parametrize("text", ["", "[]", '"a"', "{", '{"name": "a", "name": "b"}', "\xff"])
async def test_what_is_no_object_is_refused(client: httpx2.AsyncClient, text: str) -> None:
    answer = await client.post(
        "/v1/echo", content=text.encode("latin-1"), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/a+json"]
)
async def test_types_of_json(client: httpx2.AsyncClient, kind: str) -> None:
    answer = await client.post("/v1/echo", content=b'{"name": "a"}', headers={"Content-Type": kind})
    assert answer.status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "text/json", "multipart/form-data; boundary=a", None])
async def test_other_types_are_not_read(client: httpx2.AsyncClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = await client.post("/v1/echo", content=b'{"name": "a"}', headers=headers)
    assert answer.status_code == 400


async def test_errors_of_the_function(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/echo", json={"name": "config"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "a setting is wrong")
    answer = await client.post("/v1/echo", json={"name": "api"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    answer = await client.post("/v1/echo", json={"name": "fails"})
    assert (answer.status_code, "not for clients" in answer.text) == (500, False)


async def test_other_methods_and_paths_stay_fastapi_s(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/echo")).status_code == 405
    assert (await client.post("/v1/echoes", json={})).status_code == 404


@pytest.mark.parametrize("path", ANSWERING)
async def test_routes_that_answer_need_no_app_behind_them(path: str) -> None:
    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the request got past its route")

    routes = [route for each in ROUTERS for route in each.routes if isinstance(route, APIRoute)]
    (route,) = (each for each in routes if each.path == path and "POST" in each.methods)
    transport = httpx2.ASGITransport(app=DirectRoutes(behind, {path: route}))
    async with httpx2.AsyncClient(transport=transport, base_url="http://here") as made:
        answer = await made.post(path, json={"unheard_of": 1})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
