"""What an operator may set, and what is refused before the server starts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tests.unit.server.live import MEMORY_BYTES

from puna.errors import ConfigError
from puna.models.local import open_model
from puna.server.run import host_all
from puna.server.settings import ServerSettings

SECONDS = ["keep_alive_s", "max_wait_s", "timeout_s", "drain_s"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", [*SECONDS, "keep_state_days"])
def test_a_time_is_a_number(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` must be .*, got {value}"):
        ServerSettings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"), [("port", -1), ("max_running", 0), ("max_waiting", -1), ("timeout_s", 0)]
)
def test_what_is_out_of_range_is_named(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` must be .*, got {value}"):
        ServerSettings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["http://my.host", "my.host:8605", "my.host/", "*.host", "", "hôte"])
def test_a_name_that_no_request_can_have_is_refused(name: str) -> None:
    ServerSettings(allowed_hosts=("my.host", "MY-host_2"))
    with pytest.raises(ConfigError, match="an allowed host is a name without scheme and port"):
        ServerSettings(allowed_hosts=("my.host", name))


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"context": 0}, {"context": 10**9}])
def test_what_no_model_could_be_loaded_with_is_refused_at_once(
    tiny_folder: Path, llama3_folder: Path, wrong: dict[str, Any]
) -> None:
    found = [(str(folder), open_model(str(folder), "auto")) for folder in (tiny_folder, llama3_folder)]
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"`{name}` must be .*, got {value}"):
        host_all(found, ServerSettings(**wrong), MEMORY_BYTES)
