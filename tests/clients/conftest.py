"""One server with the default model, for calls through the clients that people use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import pytest
from llama_stack_client import LlamaStackClient
from ogx_client import OgxClient
from tests.unit.server.live import MEMORY_BYTES, Live, running

from puna.models.local import open_model
from puna.server.hosting.hosted import host_local
from puna.server.settings import ServerSettings

MODEL = "llama"


@pytest.fixture(scope="session")
def served(default_gguf: Path) -> Iterator[Live]:
    settings = ServerSettings(context=1024, threads=1)
    model = host_local(open_model(str(default_gguf), "auto"), settings, MEMORY_BYTES)
    model.id = MODEL
    with running([model]) as live:
        yield live


@pytest.fixture(scope="session")
def gpt(served: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def claude(served: Live) -> Iterator[anthropic.Anthropic]:
    base = served.url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=base, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def stack(served: Live) -> Iterator[LlamaStackClient]:
    with LlamaStackClient(base_url=served.url.removesuffix("/v1"), max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def ogx(served: Live) -> Iterator[OgxClient]:
    with OgxClient(base_url=served.url.removesuffix("/v1"), max_retries=0) as client:
        yield client
