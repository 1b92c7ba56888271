from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from benchmarks import overhead, servers
from tests.tiny import save_tiny

# The real program is built by whoever measures; its options are turned into ours, and the rest is real.
PEER = """#!{python}
import os, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert given["--parallel"] == "3" and int(given["-c"]) >= 3 * (8 + 4)
os.execv(sys.executable, [sys.executable, "-m", "puna", "serve", given["-m"], "--port", given["--port"]])
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    save_tiny(folder)
    return folder


def test_two_servers_answer_the_same_bursts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, figures = tmp_path / "llama-server", tmp_path / "figures.json"
    program.write_text(PEER.format(python=sys.executable))
    program.chmod(0o755)
    sizes = ["--prompt-tokens", "8", "--new-tokens", "4", "--vocabulary", "260", "--rounds", "2"]
    command = [str(model), str(model), "--llama-server", str(program), "--requests", "1", "3", *sizes]
    assert servers.main([*command, "--json", str(figures)]) == 0
    bursts = json.loads(figures.read_text())["bursts"]
    order = [(burst["server"], burst["requests"]) for burst in bursts]
    assert order[:4] == [("puna", 1), ("llama.cpp", 1), ("puna", 3), ("llama.cpp", 3)]
    assert order[4:] == [("llama.cpp", 1), ("puna", 1), ("llama.cpp", 3), ("puna", 3)]
    assert all(0 < burst["tokens"] <= 4 * burst["requests"] for burst in bursts)
    assert capsys.readouterr().out.count("x |") == 2


def test_a_peer_that_ends_is_told(model: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with status 1"):
        servers.main([str(model), str(model), "--llama-server", "/bin/false"])


def test_the_same_request_goes_with_and_without_http(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    assert (
        overhead.main(
            [str(model), "--rounds", "2", "--new-tokens", "4", "--vocabulary", "260", "--json", str(figures)]
        )
        == 0
    )
    rounds = json.loads(figures.read_text())["rounds"]
    assert [list(times) for times in rounds] == [["server", "bare", "engine"], ["bare", "engine", "server"]]
    assert all(each["first_ms"] > 0 for times in rounds for each in times.values())
    assert capsys.readouterr().out.count("a bare one") == 2
