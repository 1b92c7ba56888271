"""What is done for a client ends when the client goes away, and only then."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from puna.server.errors import ApiError
from puna.server.wire.gone import UnlessGone
from puna.server.wire.reply import unless_gone


class Client:
    """One that has sent its body, and goes away when told to."""

    def __init__(self) -> None:
        self.is_gone = asyncio.Event()
        self.request = Request({"type": "http"}, self._receive)

    async def _receive(self) -> Message:
        await self.is_gone.wait()
        return {"type": "http.disconnect"}


async def test_a_block_runs_through_where_the_client_stays() -> None:
    client = Client()
    async with UnlessGone(client.request):
        await asyncio.sleep(0)
    client.is_gone.set()
    await asyncio.sleep(0.01)  # nothing looks for it any more
    assert await unless_gone(Client().request, asyncio.sleep(0, "done")) == "done"


async def test_a_block_ends_where_the_client_goes() -> None:
    client, has_ended = Client(), False

    async def wait() -> None:
        nonlocal has_ended
        client.is_gone.set()
        try:
            await asyncio.Event().wait()
        finally:
            has_ended = True

    with pytest.raises(ClientDisconnect):
        await unless_gone(client.request, wait())
    assert has_ended
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0.01)  # the task goes on as one that nobody wanted to end


async def test_a_body_that_never_comes_ends_the_block() -> None:
    async def receive() -> Message:
        raise ApiError(408, "the body takes too long")

    with pytest.raises(ClientDisconnect):
        await unless_gone(Request({"type": "http"}, receive), asyncio.sleep(60))


async def test_work_ends_where_the_client_has_gone_already() -> None:
    client = Client()
    client.is_gone.set()
    with pytest.raises(ClientDisconnect):
        await unless_gone(client.request, asyncio.sleep(60))


async def test_a_task_that_is_cancelled_ends_as_one() -> None:
    client = Client()

    async def work() -> None:
        async with UnlessGone(client.request):
            await asyncio.Event().wait()

    for goes_too in (False, True):
        task = asyncio.create_task(work())
        await asyncio.sleep(0.01)
        task.cancel()
        if goes_too:
            client.is_gone.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()


async def test_a_block_s_own_error_stays_what_it_is() -> None:
    client = Client()

    async def fail() -> None:
        client.is_gone.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        await unless_gone(client.request, fail())
