"""Heads of responses wait for what follows at once, and for nothing else."""

from __future__ import annotations

import asyncio

import pytest

from puna.server.door.joined import JoinedTransport


class Recorded(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
async def pair() -> tuple[Recorded, JoinedTransport]:
    recorded = Recorded()
    return recorded, JoinedTransport(recorded, asyncio.get_running_loop())


async def test_a_head_goes_with_what_follows_at_once(pair: tuple[Recorded, JoinedTransport]) -> None:
    recorded, joined = pair
    joined.write(b"head ")
    assert recorded.written == []
    joined.write(b"first")
    joined.write(b"second")
    await asyncio.sleep(0.01)
    assert recorded.written == [b"head first", b"second"]


async def test_a_head_alone_goes_in_the_next_round(pair: tuple[Recorded, JoinedTransport]) -> None:
    recorded, joined = pair
    joined.write(b"head")
    await asyncio.sleep(0)
    assert recorded.written == [b"head"]
    joined.write(b"later")
    assert recorded.written == [b"head", b"later"]


async def test_nothing_is_lost_at_the_end(pair: tuple[Recorded, JoinedTransport]) -> None:
    recorded, joined = pair
    joined.write(b"head")
    joined.close()
    await asyncio.sleep(0.01)
    assert (recorded.written, joined.is_closing()) == ([b"head"], True)


async def test_nothing_is_written_to_who_is_gone(pair: tuple[Recorded, JoinedTransport]) -> None:
    recorded, joined = pair
    joined.write(b"head")
    recorded.close()
    await asyncio.sleep(0.01)
    assert recorded.written == []
