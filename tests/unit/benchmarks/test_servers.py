from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from benchmarks import overhead, servers
from tests.tiny import save_tiny

# The real programs are installed by whoever measures; their options are turned into ours, the rest is real.
PEER = """#!{python}
import os, sys
given = {{name: value for name, value in zip(sys.argv, sys.argv[1:]) if name.startswith("-")}}
if given["-m"] == "llama_cpp.server":
    given["-m"] = given["--model"]
    assert given["--interrupt_requests"] == "False" and int(given["--n_ctx"]) >= 8 + 4
else:
    assert given["--parallel"] == "3" and int(given["-c"]) >= 3 * (8 + 4)
os.execv(sys.executable, [sys.executable, "-m", "puna", "serve", given["-m"], "--port", given["--port"]])
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    save_tiny(folder)
    return folder


def test_all_servers_answer_the_same_bursts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, figures = tmp_path / "llama-server", tmp_path / "figures.json"
    program.write_text(PEER.format(python=sys.executable))
    program.chmod(0o755)
    sizes = ["--prompt-numbers", "2", "--new-tokens", "4", "--rounds", "2", "--requests", "1", "3"]
    peers = ["--llama-server", str(program), "--llama-cpp-python", str(program)]
    command = [str(model), str(model), *peers, *sizes]
    assert servers.main([*command, "--json", str(figures)]) == 0
    bursts = json.loads(figures.read_text())["bursts"]
    order = [(burst["server"], burst["requests"]) for burst in bursts]
    names = ["puna", "llama-server", "llama-cpp-python"]
    assert order[:6] == [(name, n) for n in (1, 3) for name in names]
    assert order[6:] == [(name, n) for n in (1, 3) for name in names[::-1]]
    assert all(0 < burst["tokens"] <= 4 * burst["requests"] for burst in bursts)
    assert capsys.readouterr().out.count("x |") == 6


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
