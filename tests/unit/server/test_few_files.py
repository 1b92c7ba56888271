"""Connections where the system lets a process open few files."""

from __future__ import annotations

import resource
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from puna.errors import ConfigError
from puna.server import run
from puna.server.settings import ServerSettings

FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from puna.server.door.files import with_files
from puna.server.settings import ServerSettings
made = with_files(ServerSettings())
print(made.max_connections, made.max_requests, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (1024, 4000, "1024 512 3328"),
        (3327, 3327, "1023 512 3327"),
        (1400, 1400, "381 365 1400"),
        (320, 320, "32 16 320"),
        (64, 64, "32 16 64"),
    ],
)
def test_connections_have_files_in_a_burst_too(soft: int, hard: int, expected: str) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip(f"the system allows fewer than {hard} files")
    code = FILES.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
    assert ("few_files" in done.stderr) == (hard < 3328)


def test_a_burst_takes_no_more_files_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "create_app", lambda services: None)
    services: Any = SimpleNamespace(settings=ServerSettings(max_requests=1, max_connections=20))
    assert run.Server(services).config.backlog == 40


def test_requests_leave_connections_to_those_that_ask_how_it_is() -> None:
    ServerSettings(max_requests=512, max_connections=528)
    with pytest.raises(ConfigError, match="`max_connections` must be at least 528, 16 more than"):
        ServerSettings(max_requests=512, max_connections=527)
