"""One server with the default model, for calls through the clients that people use, which are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import llama_stack_client
import ogx_client
import openai
import pytest
from llama_stack_client import LlamaStackClient
from ogx_client import OgxClient
from tests.unit.server.live import MEMORY_BYTES, Live, running

from puna.models.local import open_model
from puna.server.hosting.hosted import host_local
from puna.server.settings import ServerSettings

MODEL = "llama"
CALLS: Counter[str] = Counter()


def counting(module: Any) -> Any:
    """An HTTP client for a module's client, that counts what it sends."""
    count: Callable[[Any], None] = lambda _: CALLS.update([module.__name__])  # noqa: E731
    return module.DefaultHttpxClient(event_hooks={"request": [count]})


def lenient(client: Any) -> Any:
    """The client without the check of what it gets, for the places where its own types are too narrow.

    OpenAI's API sends there what its client's types do not have: null as `finish_reason` of a completion that
    goes on and as the log-probability of its first token, embeddings in base64, a stored message of the user.
    """
    return client.with_options(_extra_kwargs={"_strict_response_validation": False})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CALLS:
        told = ", ".join(f"{name} {n}" for name, n in sorted(CALLS.items()))
        terminalreporter.write_line(f"calls through other people's clients: {CALLS.total()} ({told})")


@pytest.fixture(scope="session")
def served(default_gguf: Path) -> Iterator[Live]:
    settings = ServerSettings(context=1024, threads=1)
    model = host_local(open_model(str(default_gguf), "auto"), settings, MEMORY_BYTES)
    model.id = MODEL
    with running([model]) as live:
        yield live


@pytest.fixture(scope="session")
def gpt(served: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=served.url,
        api_key="none",
        max_retries=0,
        _strict_response_validation=True,
        http_client=counting(openai),
    ) as client:
        yield client


@pytest.fixture(scope="session")
def claude(served: Live) -> Iterator[anthropic.Anthropic]:
    base = served.url.removesuffix("/v1")
    with anthropic.Anthropic(
        base_url=base,
        api_key="none",
        max_retries=0,
        _strict_response_validation=True,
        http_client=counting(anthropic),
    ) as client:
        yield client


@pytest.fixture(scope="session")
def stack(served: Live) -> Iterator[LlamaStackClient]:
    with LlamaStackClient(
        base_url=served.url.removesuffix("/v1"),
        max_retries=0,
        http_client=counting(llama_stack_client),
    ) as client:
        yield client


@pytest.fixture(scope="session")
def ogx(served: Live) -> Iterator[OgxClient]:
    with OgxClient(
        base_url=served.url.removesuffix("/v1"),
        max_retries=0,
        _strict_response_validation=True,
        http_client=counting(ogx_client),
    ) as client:
        yield client
