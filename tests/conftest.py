"""Fixtures for all tests: the default model, no network, and a store of their own."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """A shell that starts the tests in the background has them ignore Ctrl-C, and their processes too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def default_gguf() -> Path:
    """The default model's GGUF file: PUNA_TEST_GGUF where that is set, else the user's own store."""
    given = os.environ.get("PUNA_TEST_GGUF")
    if given:
        return Path(given)
    from puna.models import store
    from puna.models.catalogue import DEFAULT_MODEL

    return store.path_of(DEFAULT_MODEL)


@pytest.fixture(scope="session")
def store_home(default_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has the default model, for those that only read it."""
    from puna.models.catalogue import DEFAULT_MODEL

    home = tmp_path_factory.mktemp("shared") / "puna"
    folder = home / "models" / DEFAULT_MODEL
    folder.mkdir(parents=True)
    (folder / default_gguf.name).symlink_to(default_gguf.resolve())
    return home


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUNA_HOME", str(tmp_path_factory.mktemp("home") / "puna"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that leave this machine; session fixtures are made before this and may fetch."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _loopback_only(getattr(socket.socket, name)))


def _loopback_only(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        host = address[0] if isinstance(address, tuple) else "a local socket"
        if isinstance(address, tuple) and host != "localhost" and host != "::1" and host[:4] != "127.":
            pytest.fail(f"a test tried to connect to {host}")
        return connect(self, address)

    return guarded
