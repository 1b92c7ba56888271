"""``puna serve``: models for other programs, over HTTP."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from puna.cli import options
from puna.cli.key import environment_key
from puna.errors import ConfigError

if TYPE_CHECKING:
    from puna.models.local import LocalModel
    from puna.server.settings import ApiKey

__all__ = ["serve"]

_UNLIMITED = 2**62
_MOST_GB = 10**9
_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Names or paths of models, or hf:ORG/REPO; default: smollm2-135m-instruct.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Address to listen on; elsewhere than here, keys are needed."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", help="Port; 0 for any that is free.")] = 8321,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys", metavar="FILE", help="API keys, as `puna key` writes them; PUNA_API_KEY gives one more."
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in who can reach the address, without a key.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name under which clients reach this server."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin", metavar="ORIGIN", help="Web pages that may use it: https://chat.example"
        ),
    ] = None,
    keep_alive: Annotated[
        float | None,
        typer.Option(
            "--keep-alive",
            metavar="SECONDS",
            help="Unload a model that was idle so long; default: only where memory is short.",
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            "--memory", metavar="GB", help="What all models may take; default: nine tenths of the machine's."
        ),
    ] = None,
    max_running: Annotated[
        int, typer.Option("--max-running", metavar="N", help="Answers of a model that are computed at once.")
    ] = 64,
    max_waiting: Annotated[
        int,
        typer.Option(
            "--max-waiting", metavar="N", help="Answers of a model that may wait; more are refused."
        ),
    ] = 128,
    max_wait: Annotated[
        float,
        typer.Option(
            "--max-wait", metavar="SECONDS", help="An answer whose turn is expected later is refused at once."
        ),
    ] = 30,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Time for an answer, waiting included.")
    ] = 600,
    drain: Annotated[
        float, typer.Option("--drain", metavar="SECONDS", help="Time for running answers after SIGTERM.")
    ] = 30,
    keep_state_days: Annotated[
        float,
        typer.Option(
            "--keep-state-days",
            metavar="DAYS",
            help="Forget stored completions and responses after so long; 0: keep them.",
        ),
    ] = 30,
    max_state: Annotated[
        float, typer.Option("--max-state", metavar="GB", help="How large the SQLite database may become.")
    ] = 4,
    traces: Annotated[
        str | None,
        typer.Option(
            "--traces",
            metavar="URL",
            help="Send OpenTelemetry traces to this collector: http://localhost:4318",
        ),
    ] = None,
    format: options.Format = "auto",
    threads: options.Threads = None,
    context: options.Context = None,
    cache: options.Cache = "auto",
    speculation: options.Speculation = "lookup",
    draft: options.Draft = None,
) -> None:
    """Serve models to other programs, as OpenAI's API does.

    One model is loaded at once, several are on first use.
    """
    _open_missing()
    from puna.cli.process import noted
    from puna.evaluate.machine import this_machine
    from puna.models.catalogue import DEFAULT_MODEL
    from puna.server.run import host_all
    from puna.server.run import serve as run
    from puna.server.settings import ServerSettings

    settings = ServerSettings(
        host=host,
        port=port,
        keys=_keys(keys),
        is_insecure=insecure,
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=tuple(allow_origin or ()),
        format=format,
        threads=threads,
        context=context,
        cache=cache,
        speculation=speculation,
        keep_alive_s=keep_alive,
        max_running=max_running,
        max_waiting=max_waiting,
        max_wait_s=max_wait,
        timeout_s=timeout,
        drain_s=drain,
        # Out of the environment, as the key: it may hold a password.
        database_url=os.environ.pop("DATABASE_URL", None) or None,
        keep_state_days=keep_state_days or None,
        max_state_bytes=_bytes("--max-state", max_state),
        traces_url=traces,
    )
    machine_bytes = this_machine().memory_bytes
    if memory is not None:
        budget = _bytes("--memory", memory)
    else:
        budget = int(0.9 * machine_bytes) if machine_bytes else _UNLIMITED
    found = [(name, _find(name, format)) for name in dict.fromkeys(models or [DEFAULT_MODEL])]
    hosted = host_all(found, settings, budget, _find(draft, "auto") if draft else None)

    notes = ExitStack()

    def tell(actual_port: int, instance: str) -> None:
        notes.enter_context(noted(instance))
        shown = f"[{host}]" if ":" in host else host
        base = f"http://{shown}:{actual_port}/v1"
        body = {"model": hosted[0].id, "messages": [{"role": "user", "content": "Why do llamas hum?"}]}
        key = " -H 'Authorization: Bearer KEY'" if settings.keys else ""
        typer.echo(f"serving {', '.join(model.id for model in hosted)} at {base}")
        typer.echo(
            f"curl {base}/chat/completions{key} -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
        )

    def abandon() -> None:
        try:
            notes.close()
        finally:
            os._exit(1)  # without a last word: it may be the log that nobody takes

    status = 0
    with notes:
        try:
            is_over = run(hosted, settings, budget, tell, abandon)
        except KeyboardInterrupt:  # before clients may come; the only model may still be loading
            is_over, status = False, _INTERRUPTED
    if not is_over:
        _leave(status)


def _open_missing() -> None:
    """Open what the process was started without of stdin, stdout and stderr.

    Else the event loop's files would get their numbers, and what is printed would go there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _leave(status: int) -> NoReturn:
    """End the process now: Python would wait for a load that still runs; it writes nothing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody may read it any more
            stream.flush()
    os._exit(status)


def _bytes(option: str, gigabytes: float) -> int:
    if not 0 < gigabytes <= _MOST_GB:
        raise ConfigError(f"{option} must be over 0 GB, and {_MOST_GB} at most, got {gigabytes}")
    return int(gigabytes * 1e9)


def _keys(file: Path | None) -> tuple[ApiKey, ...]:
    from puna.server.door.keys import hashed, read_keys

    alone = environment_key()
    # Out of the environment, where programs started from here would find it.
    os.environ.pop("PUNA_API_KEY", None)
    return (*(read_keys(file) if file else ()), *([hashed("PUNA_API_KEY", alone)] if alone else ()))


def _find(name: str, format: str) -> LocalModel:
    from puna.cli.progress import FetchProgress, PackProgress
    from puna.models.local import open_model
    from puna.models.pull import pull

    with FetchProgress() as fetching, PackProgress("packing") as packing:
        if name.startswith(("hf:", "ollama:")):
            name = pull(name, progress=fetching).name
        return open_model(name, format, fetching, packing)
