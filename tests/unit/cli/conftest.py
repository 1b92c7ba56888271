"""The command line as a process, with a store that holds the default model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from puna.llama import Llama, load
from puna.models.catalogue import DEFAULT_MODEL

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def llama(store_home: Path) -> Llama:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUNA_HOME", str(store_home))
        return load(DEFAULT_MODEL)


@pytest.fixture
def environment(store_home: Path) -> dict[str, str]:
    return {**os.environ, "PUNA_HOME": str(store_home)}


@pytest.fixture
def puna(environment: dict[str, str]) -> Run:
    """Runs ``puna`` with arguments; what is not given through a pipe is an empty one."""

    def run(*arguments: object, piped: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "puna", *map(str, arguments)],
            input=piped,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**environment, **settings},
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def refused(puna: Run) -> Callable[..., str]:
    """Runs ``puna``, insists that it fails in one line on stderr, and returns that line."""

    def run(*arguments: object, status: int, piped: str = "", **settings: str) -> str:
        done = puna(*arguments, piped=piped, **settings)
        assert (done.returncode, done.stdout) == (status, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("puna: error: ")
        return line.removeprefix("puna: error: ")

    return run
