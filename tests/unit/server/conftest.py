"""One server for a module's tests: a tiny random model, and one that follows a script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.tiny import save_tiny, save_tiny_llama3
from tests.unit.server.live import MEMORY_BYTES, Live, running
from tests.unit.server.postgres import postgres
from tests.unit.server.scripted import ScriptedEngine

from puna.llama import Llama
from puna.models.local import open_model
from puna.models.packed import pack_checkpoint
from puna.server.hosting.hosted import HostedModel, host_local
from puna.server.ids import new_id
from puna.server.settings import ServerSettings
from puna.server.state.store import State

CONTEXT = 512

SCRIPT = {
    "33 degrees": "It is warm.",
    "one call": '<|python_tag|>{"name": "weather", "parameters": {"city": "Cusco"}}',
    "two calls": '{"name": "weather", "parameters": {"city": "Cusco"}}\n'
    '{"name": "weather", "parameters": {"city": "Puno"}}',
    "talk and call": 'Let me look.\n{"name": "weather", "parameters": {"city": "Cusco"}}',
    "undeclared": '{"name": "launch", "parameters": {"city": "Cusco"}}',
    "malformed": '{"name": "weather", "parameters": {"city": ',
    "wrong type": '{"name": "weather", "parameters": {"city": 7}}',
    "costly": '{"name": "match", "parameters": {"text": "' + "a" * 40 + '!"}}',
    "stop and fall silent": "before END after\u2026",
    "fall silent": "hm\u2026",
    "Sum up our conversation": "She asked for three things.",
    "stop here": "before END after",
    "odd lines": "one\u2028two\x85three\u2029four",
}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    folder.mkdir()
    save_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def llama3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "scripted"
    folder.mkdir()
    save_tiny_llama3(folder)
    return folder


def hosted(folder: Path, **settings: object) -> HostedModel:
    """A model as the server hosts it, not loaded yet."""
    given = ServerSettings(**{"threads": 1, "context": CONTEXT, **settings})  # type: ignore[arg-type]
    return host_local(open_model(str(folder), "auto"), given, MEMORY_BYTES)


@pytest.fixture(scope="session")
def scripted(llama3_folder: Path) -> Llama:
    """A Llama 3.1 that says what stands in `SCRIPT`."""
    local = open_model(str(llama3_folder), "auto")
    llama = Llama(local.name, local.checkpoint, pack_checkpoint(local.checkpoint, "auto", None), threads=1)
    llama.engine = ScriptedEngine(llama.tokenizer, SCRIPT)
    return llama


@pytest.fixture(scope="session")
def scripted_model(scripted: Llama) -> HostedModel:
    return HostedModel(id="scripted", context_tokens=4096, need_bytes=1000, load=lambda: scripted)


@pytest.fixture(scope="module")
def live(tiny_folder: Path, scripted_model: HostedModel) -> Iterator[Live]:
    scripted_model.loaded = None
    with running([hosted(tiny_folder), scripted_model]) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL database that all tests share; what they ask for is told apart by its owner."""
    with postgres() as url:
        yield url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where SQLite has what the server keeps."""
    return tmp_path / "state" / "puna.db"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """None: SQLite."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else None


@pytest.fixture
async def kept(database_url: str | None, file: Path) -> AsyncIterator[State]:
    """What the server keeps, in each kind of database, and for ever: tests say that things are old."""
    store = State(ServerSettings(database_url=database_url, keep_state_days=None), file)
    yield store
    await store.close()


@pytest.fixture
def owner() -> str:
    return new_id("owner-")
