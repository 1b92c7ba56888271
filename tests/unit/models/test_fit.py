from __future__ import annotations

from pathlib import Path

import pytest

from puna import _native
from puna.engine.scheduler import STEP_TOKENS
from puna.errors import ConfigError
from puna.models.catalogue import CATALOGUE, resolve
from puna.models.config import ModelConfig
from puna.models.fit import _STEP_TOKENS, fit_of_config, fit_of_row, memory
from puna.models.open import open_checkpoint
from puna.models.packed import FORMATS, pack_checkpoint
from puna.models.rows import CatalogueRow


@pytest.mark.parametrize("wanted", FORMATS)
def test_weights_of_the_default_model_are_those_that_packing_gives(default_gguf: Path, wanted: str) -> None:
    checkpoint = open_checkpoint(default_gguf)
    need = memory(checkpoint.config, checkpoint.dtypes, wanted, 100)
    assert need.weight_bytes == pack_checkpoint(checkpoint, wanted).n_bytes


def test_a_step_has_as_many_tokens_as_the_engine_s() -> None:
    assert _STEP_TOKENS == STEP_TOKENS


def test_one_billion_by_hand() -> None:
    """2048 wide, 16 layers, 8 heads of 64 for keys and values, tied; 33 norms in float32."""
    fit = fit_of_row(resolve("llama3.2-1b"), context_tokens=4096)
    norms, weights = 33 * 2048, 1_235_814_400 - 33 * 2048
    assert fit.parameters == 1_235_814_400
    assert fit.source_bytes == 2 * 1_235_814_400
    assert fit.memory["f32"].weight_bytes == 4 * weights + 4 * norms
    assert fit.memory["bf16"].weight_bytes == 2 * weights + 4 * norms
    assert fit.memory["auto"] == fit.memory["bf16"]
    assert fit.memory["bf16"].cache_bytes == 4096 * 16 * 2 * 8 * 64 * 2
    assert fit.memory["f32"].cache_bytes == 4096 * 16 * 2 * 8 * 64 * 4
    table = _native.packed_bytes("int8_channel", 128256, 2048)
    layer = {(2048, 2048): 2, (512, 2048): 2, (8192, 2048): 2, (2048, 8192): 1}
    blocks = sum(n * _native.packed_bytes("int4_group32", *shape) for shape, n in layer.items())
    assert fit.memory["int4"].weight_bytes == table + 16 * blocks + 4 * norms
    assert 10_000_000 < fit.memory["int4"].workspace_bytes < 100_000_000
    assert set(fit.memory) == set(FORMATS)


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)
def test_every_row_has_a_report(row: CatalogueRow) -> None:
    fit = fit_of_row(row, memory_bytes=1 << 60, free_bytes=1 << 60)
    assert fit.parameters == row.n_parameters
    assert fit.fits_disk is True
    assert 0.3 * fit.parameters < fit.source_bytes <= 4 * fit.parameters
    assert set(fit.memory) == set(FORMATS) - ({"int8", "int4"} if row.kind == "classifier" else set())
    assert all(need.fits is True for need in fit.memory.values())
    tight = fit_of_row(row, memory_bytes=1, free_bytes=1)
    assert tight.fits_disk is False
    assert all(need.fits is False for need in tight.memory.values())
    unknown = fit_of_row(row)
    assert unknown.fits_disk is None
    assert all(need.fits is None for need in unknown.memory.values())


def test_a_vision_model_by_hand() -> None:
    """Trunk as a text model; the other weights in 16 bits; an image of 4 tiles of 1,601 in 8 layers."""
    trunk, fit = fit_of_row(resolve("llama3.1-8b")), fit_of_row(resolve("llama3.2-11b-vision"))
    for wanted, width in {"auto": 2, "f32": 4, "bf16": 2, "int8": 2, "int4": 2}.items():
        need, text = fit.memory[wanted], trunk.memory[wanted]
        assert need.weight_bytes - text.weight_bytes == width * (fit.parameters - trunk.parameters)
        assert need.cache_bytes - text.cache_bytes == width * 2 * 8 * 8 * 128 * 4 * 1601
        assert need.workspace_bytes == text.workspace_bytes


def test_a_classifier_by_hand() -> None:
    fit = fit_of_row(resolve("prompt-guard-86m"))
    assert {wanted: need.weight_bytes / fit.parameters for wanted, need in fit.memory.items()} == {
        "auto": 4,
        "f32": 4,
        "bf16": 2,
    }
    assert {need.workspace_bytes for need in fit.memory.values()} == {4 * 512 * (36 * 512 + 8 * 768)}
    assert {need.cache_bytes for need in fit.memory.values()} == {0}


def test_the_limits_of_memory_and_disk() -> None:
    row = resolve("llama3.2-1b")
    fit = fit_of_row(row)
    total = fit.memory["auto"].total_bytes
    assert fit_of_row(row, memory_bytes=total).memory["auto"].fits is False
    assert fit_of_row(row, memory_bytes=int(total / 0.9) + 1).memory["auto"].fits is True
    on_disk = fit.source_bytes + fit.memory["auto"].weight_bytes
    assert fit_of_row(row, free_bytes=on_disk).fits_disk is True
    assert fit_of_row(row, free_bytes=on_disk - 1).fits_disk is False


def test_contexts() -> None:
    assert fit_of_row(resolve("llama3.2-1b")).context_tokens == 8192
    assert fit_of_row(resolve("llama2-7b")).context_tokens == 4096
    assert fit_of_row(resolve("prompt-guard-86m")).context_tokens == 512
    longer = fit_of_row(resolve("llama3.2-1b"), context_tokens=131_072)
    assert (
        longer.memory["auto"].cache_bytes
        == 16 * fit_of_row(resolve("llama3.2-1b")).memory["auto"].cache_bytes
    )


def test_a_checkpoint_of_all_float32_has_an_exact_cache(small_config: ModelConfig) -> None:
    names = small_config.tensor_shapes()
    exact = fit_of_config(small_config, dict.fromkeys(names, "F32"), source_bytes=7, context_tokens=10)
    rounded = fit_of_config(small_config, dict.fromkeys(names, "BF16"), source_bytes=7, context_tokens=10)
    assert exact.source_bytes == 7
    assert exact.memory["auto"].cache_bytes == 2 * rounded.memory["auto"].cache_bytes


def test_the_official_quantized_models_are_larger_on_disk_than_in_memory() -> None:
    fit = fit_of_row(resolve("llama3.2-1b-spinquant"))
    table = 128256 * (2048 + 4)
    blocks = 16 * (2 * 2048 * 2048 + 2 * 512 * 2048 + 3 * 8192 * 2048) * 36 // 32
    assert fit.source_bytes == 2 * table + blocks + 2 * 33 * 2048
    assert fit.memory["auto"] == fit.memory["int4"]
    assert fit.memory["auto"].weight_bytes < fit.source_bytes
    adapted = fit_of_row(resolve("llama3.2-1b-qlora"))
    sides = 16 * (9 * 2048 + 3 * 8192 + 2 * 512)  # of 16 layers: an input and an output of each linear
    assert adapted.source_bytes - fit.source_bytes == 2 * 16 * sides
    more = adapted.memory["auto"].weight_bytes - fit.memory["auto"].weight_bytes
    assert 2 * 16 * sides < more < 4.5 * 2 * 16 * sides  # the second halves' 16 columns are padded to 64


def test_an_unknown_format(small_config: ModelConfig) -> None:
    dtypes = dict.fromkeys(small_config.tensor_shapes(), "F32")
    with pytest.raises(ConfigError, match="format 'int44' is unknown; did you mean 'int4'"):
        memory(small_config, dtypes, "int44", 10)
