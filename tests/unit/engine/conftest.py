"""An engine on a tiny random model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.tiny import save_tiny

from puna.engine.native import NativeEngine
from puna.models.open import open_checkpoint
from puna.models.packed import PackedModel, pack_checkpoint
from puna.tokens import Tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[PackedModel, Tokenizer]:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    checkpoint = open_checkpoint(folder)
    return pack_checkpoint(checkpoint, "int4"), Tokenizer(checkpoint.vocabulary())


@pytest.fixture
def engine(tiny: tuple[PackedModel, Tokenizer]) -> Iterator[NativeEngine]:
    engine = NativeEngine(*tiny, n_threads=2)
    yield engine
    engine.close()
