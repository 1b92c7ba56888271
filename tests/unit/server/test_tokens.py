"""Texts to token ids and back over HTTP, however long."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.server.live import Live

from puna import Llama
from puna.server.routes import tokens

TEXTS = ["", "hum", 'a "quoted" back\\slash\n\ttab \x00 and \u2028 Küche 🦙🦙🦙 ' * 9]


@pytest.mark.parametrize("text", TEXTS, ids=["empty", "short", "long"])
def test_what_is_written_in_pieces_is_the_whole(
    live: Live, scripted: Llama, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []

    def dumps(piece: Any, **options: Any) -> str:
        lengths.append(len(piece))
        return json.dumps(piece, **options)

    monkeypatch.setattr(tokens, "_PIECE", 5)
    monkeypatch.setattr(tokens, "json", SimpleNamespace(dumps=dumps))
    body = {"model": "scripted", "prompt": text, "add_special_tokens": False}
    ids = scripted.tokenizer.encode(text)
    told = live.http.post("/v1/tokenize", json=body).json()
    assert told == {"tokens": ids, "count": len(ids), "max_model_len": 4096}
    ids = ids or [0]
    told = live.http.post("/v1/detokenize", json={"model": "scripted", "tokens": ids}).json()
    assert told == {"prompt": scripted.tokenizer.decode(ids)}
    assert max(lengths) <= 5
