"""The commands that use a running server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.tiny import save_tiny
from tests.unit.cli.conftest import Run

import puna as library


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str], Path]]:
    """URL of `puna serve` with a tiny model, its environment, and the model."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    folder.mkdir()
    save_tiny(folder)
    environment = {
        **os.environ,
        "PUNA_HOME": str(tmp_path_factory.mktemp("home")),
        "PUNA_API_KEY": "secret\n",
    }
    command = [sys.executable, "-m", "puna", "serve", str(folder), "--port", "0", "--threads", "1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        yield found[0], environment, folder
        assert process.wait(10) == 0  # the last test ended it


def test_chat_answers_as_in_this_process(puna: Run, served: tuple[str, dict[str, str], Path]) -> None:
    url, environment, folder = served
    done = puna(
        *("chat", "--server", url, "Why hum?", "--system", "Be brief."),
        *("--max-tokens", 9, "--seed", 3, "--json"),
        **environment,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    with library.load(str(folder), threads=1) as llama:
        expected = llama.chat(
            [library.System("Be brief."), library.User("Why hum?")], max_tokens=9, seed=3
        ).result()
    assert document["text"] == expected.text
    assert (document["model"], document["seed"], document["finish_reason"]) == ("tiny", 3, "length")
    assert document["usage"]["completion_tokens"] == 9


def test_ps_and_top_tell_what_is_in_memory(puna: Run, served: tuple[str, dict[str, str], Path]) -> None:
    url, environment, _ = served
    head, row = puna("ps", "--server", url, **environment).stdout.splitlines()
    assert head.split()[:3] == ["model", "memory", "context"]
    assert row.split()[0] == "tiny"
    state = json.loads(
        puna("ps", "--server", f"{url.removeprefix('http://')}/v1/", "--json", **environment).stdout
    )
    assert state["models"][0]["is_loaded"] is True
    shown = puna("top", "--server", url, "--once", COLUMNS="200", **environment).stdout
    assert "tokens/s" in shown
    assert "tiny" in shown


def test_stop_unloads_one_model(puna: Run, served: tuple[str, dict[str, str], Path]) -> None:
    url, environment, _ = served
    assert "tiny is out of memory" in puna("stop", "tiny", "--server", url, **environment).stderr
    assert "not loaded" in puna("ps", "--server", url, **environment).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stop", "other"), "the server refuses: Model 'other' not found"),
        (("chat", "other", "Why hum?"), "the server refuses: Model 'other' not found"),
        (("chat", "tiny", "x" * 2000), "the server refuses: the prompt has"),
    ],
)
def test_what_the_server_refuses_is_told(
    puna: Run, served: tuple[str, dict[str, str], Path], arguments: tuple[str, ...], message: str
) -> None:
    url, environment, _ = served
    done = puna(*arguments, "--server", url, **environment)
    assert done.returncode == 1
    assert message in done.stderr


def test_a_key_is_needed(puna: Run, served: tuple[str, dict[str, str], Path]) -> None:
    url, environment, _ = served
    done = puna("ps", "--server", url, **{**environment, "PUNA_API_KEY": "wrong"})
    assert "a valid API key is needed" in done.stderr
    for around in ("secret", "secret\r\n", " secret "):
        assert puna("ps", "--server", url, **{**environment, "PUNA_API_KEY": around}).returncode == 0


@pytest.mark.parametrize(("key", "got"), [("", "none"), (" \n", "none"), ("l\u00e4ma", "others in it")])
@pytest.mark.parametrize("command", ["serve", "ps"])
def test_what_is_no_key_is_refused(refused: Callable[..., str], command: str, key: str, got: str) -> None:
    told = refused(command, status=2, PUNA_API_KEY=key)
    assert told.startswith(f"PUNA_API_KEY must be a key, of printable ASCII characters, got {got}; unset it")


def test_nobody_there_is_told(puna: Run) -> None:
    done = puna("ps", "--server", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "no server answers at http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ps", "--server", "http://a:b"), "a server's URL is http://HOST[:PORT], got 'http://a:b': "),
        (
            ("chat", "hello", "--server", "http://a"),
            "there is no prompt, 'hello' being the model; give one as",
        ),
        (
            ("chat", "a b", "--server", "http://a", "--cache", "auto"),
            "--cache and --server do not go together: `puna serve` takes it, for all",
        ),
    ],
)
def test_what_no_server_can_be_asked_is_refused(
    refused: Callable[..., str], arguments: tuple[str, ...], message: str
) -> None:
    assert refused(*arguments, status=2).startswith(message)


def test_another_s_server_is_not_ended(
    puna: Run, served: tuple[str, dict[str, str], Path], tmp_path: Path
) -> None:
    url, environment, _ = served
    done = puna("stop", "--server", url, **{**environment, "PUNA_HOME": str(tmp_path)})
    assert (done.returncode, "not started by you" in done.stderr) == (1, True)


def test_stop_ends_the_server(puna: Run, served: tuple[str, dict[str, str], Path]) -> None:
    url, environment, _ = served
    done = puna("stop", "--server", url, **environment)
    assert (done.returncode, f"the server at {url} has ended" in done.stderr) == (0, True)
