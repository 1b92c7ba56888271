"""``puna ps``, ``puna stop`` and ``puna top``: a running server, seen from outside."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from puna.cli import options
from puna.cli.output import duration_text, is_terminal, print_json, print_table, say, size_text

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["ps", "stop", "top"]

_HEAD = ("model", "memory", "context", "running", "waiting", "cache", "idle", "unloads in")


def ps(server: options.ServerUrl = options.SERVER_URL, as_json: options.Json = False) -> None:
    """List the models of a running server: which are in memory, and what runs."""
    from puna.cli.remote import RemoteServer

    state = RemoteServer(server).get("admin/state")
    if as_json:
        print_json(state)
    else:
        print_table(_HEAD, [_row(model) for model in state["models"]])


def stop(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Take only this model out of memory; default: end the server.",
            show_default=False,
        ),
    ] = None,
    server: options.ServerUrl = options.SERVER_URL,
) -> None:
    """End a server of yours on this machine, or take a model out of its memory.

    Running answers are finished first.
    """
    from puna.cli.process import end
    from puna.cli.remote import RemoteServer

    remote = RemoteServer(server)
    if model is not None:
        say(f"{remote.post(f'admin/models/{model}/unload')['id']} is out of memory")
        return
    end(remote.get("admin/state")["instance"])
    say(f"the server at {remote.url} has ended")


def top(
    server: options.ServerUrl = options.SERVER_URL,
    once: Annotated[bool, typer.Option("--once", help="Print one look at it and exit.")] = False,
) -> None:
    """Watch a running server: what runs and waits, and tokens a second. Ctrl-C ends it."""
    from rich.console import Console
    from rich.live import Live

    from puna.cli.remote import RemoteServer

    remote, console = RemoteServer(server), Console()
    before = remote.get("admin/state")
    if once or not is_terminal():
        console.print(_table(before, before, 1.0))
        return
    with Live(_table(before, before, 1.0), console=console, auto_refresh=False) as live:
        while True:
            begun_s = time.monotonic()
            time.sleep(1)
            now = remote.get("admin/state")
            live.update(_table(before, now, time.monotonic() - begun_s), refresh=True)
            before = now


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    if not model["is_loaded"]:
        return (model["id"], "not loaded", f"{model['context_tokens']:,}", "", "", "", "", "")
    used = model["cache_tokens_reserved"] / model["cache_tokens"]
    return (
        model["id"],
        size_text(model["memory_bytes"]),
        f"{model['context_tokens']:,}",
        str(model["running"]),
        str(model["waiting"]),
        f"{used:.0%}",
        _duration(model["idle_s"]),
        _duration(model["unloads_in_s"]),
    )


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else duration_text(seconds)


def _table(before: dict[str, Any], now: dict[str, Any], seconds: float) -> Table:
    from rich import box
    from rich.table import Table

    rate = (now["completion_tokens"] - before["completion_tokens"]) / seconds
    title = f"puna {now['version']}, up {duration_text(now['uptime_s'])}, {rate:.1f} tokens/s"
    table = Table(*_HEAD, title=title, box=box.SIMPLE)
    for model in now["models"]:
        table.add_row(*_row(model))
    return table
