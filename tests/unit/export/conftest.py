"""A tiny model whose vocabulary every format can say, packed in whatever format a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import save_tiny

from puna.engine.native import NativeEngine
from puna.llama import load
from puna.models.checkpoint import Checkpoint, Vocabulary
from puna.models.open import open_checkpoint
from puna.models.packed import write_checkpoint, write_vocabulary

IDS = {"bos_token_id": 1, "eos_token_id": 2}
Make = Callable[..., Checkpoint]


@pytest.fixture
def make(tmp_path: Path, tiny_vocabulary: Vocabulary) -> Make:
    """Makes a random model: of 264 rows of the embedding one has no token."""

    def run(format: str, **changes: Any) -> Checkpoint:
        source = tmp_path / f"source-{format}"
        save_tiny(source, vocab_size=264, hidden_size=64, intermediate_size=96, **IDS, **changes)
        write_vocabulary(source, tiny_vocabulary)
        write_checkpoint(open_checkpoint(source), tmp_path / f"model-{format}", format)
        return open_checkpoint(tmp_path / f"model-{format}")

    return run


TOKENS = [3, *range(50, 150, 3), 262, 260, 7, 7, 9]


@pytest.fixture
def logits() -> Callable[..., Any]:
    """Logits of the native engine on a few tokens."""

    def run(path: Path, format: str = "auto") -> Any:
        with load(str(path), format=format, threads=2) as llama:
            assert isinstance(llama.engine, NativeEngine)
            return llama.engine.logits(TOKENS)

    return run
