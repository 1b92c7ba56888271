"""The least that an answer over HTTP costs: uvicorn and the engine, with nothing in between.

    python -m benchmarks.bare_server smollm2-135m-instruct

It takes `prompt` and `max_tokens` as ``puna serve`` does, streams pieces of text, and checks nothing.
`benchmarks.overhead` starts it; do not let clients near it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence

import uvicorn
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from puna.engine.request import Event, Request, SamplingParams
from puna.llama import Llama, load

__all__ = ["main"]

_NICENESS = 5  # as in `puna serve`: what computes lets those that speak with clients go first


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare_server", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8399)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(arguments)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(given))
    return 0


async def _serve(given: argparse.Namespace) -> None:
    with await asyncio.to_thread(_load_nicely, given) as llama:
        config = uvicorn.Config(
            _app(llama), port=given.port, http="httptools", log_config=None, access_log=False, lifespan="off"
        )
        print(f"serving {llama.info.name} at http://127.0.0.1:{given.port}/v1", flush=True)
        await uvicorn.Server(config).serve()


def _load_nicely(given: argparse.Namespace) -> Llama:
    if sys.platform == "linux":  # a thread's own, and that of those it starts
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    return load(given.model, threads=given.threads)


def _app(llama: Llama) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        asked = json.loads(body)
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Event]()
        llama.engine.submit(
            Request(
                prompt=asked["prompt"],
                params=SamplingParams(temperature=0, max_tokens=asked["max_tokens"]),
                stop_ids=llama.chat_format.stop_ids,
                sink=lambda event: loop.call_soon_threadsafe(events.put_nowait, event),
            )
        )
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            event = await events.get()
            usage = {"completion_tokens": event.usage.completion_tokens} if event.usage else None
            line = json.dumps({"choices": [{"text": event.text}], "usage": usage})
            await send(
                {
                    "type": "http.response.body",
                    "body": f"data: {line}\n\n".encode(),
                    "more_body": not event.is_last,
                }
            )
            if event.is_last:
                return

    return app


if __name__ == "__main__":
    sys.exit(main())
