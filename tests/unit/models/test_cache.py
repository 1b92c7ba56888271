from __future__ import annotations

from dataclasses import replace

import pytest

from puna.errors import ConfigError
from puna.models.cache import CACHES, cache_bytes_per_token, cache_format
from puna.models.catalogue import resolve
from puna.models.config import ModelConfig
from puna.models.fit import fit_of_row


def test_what_a_model_gets() -> None:
    assert cache_format("auto", ["f32", "f32"]) == "f32"
    assert cache_format("auto", ["f32", "bf16"]) == "f16"
    assert cache_format("auto", ["int4_group32", "int8_channel"]) == "f16"
    for wanted in CACHES[1:]:
        assert cache_format(wanted, ["f32"]) == cache_format(wanted, ["int4_group32"]) == wanted


@pytest.mark.parametrize("name", ["int4", "f8", "", "INT8", "q8_0"])
def test_an_unknown_format_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^cache '{name}' is unknown; .*known: auto, f16, f32, int8$"):
        cache_format(name, ["f32"])


def test_bytes_by_hand() -> None:
    """16 layers, 8 heads of 64: for int8 two scales for a key and one for a value, four bytes each."""
    config = resolve("llama3.2-1b").architecture
    assert isinstance(config, ModelConfig)
    expected = {"f32": 16 * 8 * 512, "f16": 16 * 8 * 256, "int8": 16 * 8 * (64 + 8 + 64 + 4)}
    assert {name: cache_bytes_per_token(config, name) for name in expected} == expected
    # 18 numbers have values of 32 and one scale each; 16 keys lie in 5 lines of 64 bytes.
    assert cache_bytes_per_token(replace(config, head_dim=18), "int8") == 16 * 8 * (20 + 4 + 32 + 4)
    fit = fit_of_row(resolve("llama3.2-1b"), context_tokens=1000, cache="int8")
    assert {need.cache_bytes for need in fit.memory.values()} == {1000 * expected["int8"]}


def test_an_image_is_kept_like_text() -> None:
    row = resolve("llama3.2-11b-vision")
    half, eighth = fit_of_row(row).memory["int4"], fit_of_row(row, cache="int8").memory["int4"]
    assert eighth.cache_bytes == half.cache_bytes * (128 + 16 + 128 + 4) // 512
