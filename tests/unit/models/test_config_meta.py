from __future__ import annotations

import json
import math
from typing import Any

import pytest

from puna.errors import CheckpointError
from puna.models.config import ModelConfig

LLAMA2_7B = {
    "dim": 4096,
    "multiple_of": 256,
    "n_heads": 32,
    "n_layers": 32,
    "norm_eps": 1e-5,
    "vocab_size": -1,
}
LLAMA2_13B = LLAMA2_7B | {"dim": 5120, "n_heads": 40, "n_layers": 40}
LLAMA2_70B = LLAMA2_7B | {
    "dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64, "n_kv_heads": 8,
    "n_layers": 80,
}  # fmt: skip
LLAMA3_8B = {
    "dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "multiple_of": 1024,
    "ffn_dim_multiplier": 1.3, "norm_eps": 1e-5, "rope_theta": 500000.0,
}  # fmt: skip
LLAMA3_70B = LLAMA3_8B | {"dim": 8192, "n_layers": 80, "n_heads": 64, "multiple_of": 4096}
LLAMA31_8B = LLAMA3_8B | {"use_scaled_rope": True}
LLAMA31_405B = LLAMA31_8B | {
    "dim": 16384, "n_layers": 126, "n_heads": 128, "multiple_of": 4096, "ffn_dim_multiplier": 1.2
}  # fmt: skip
LLAMA32_1B = LLAMA31_8B | {"dim": 2048, "n_layers": 16, "multiple_of": 256, "ffn_dim_multiplier": 1.5}
LLAMA32_3B = LLAMA31_8B | {
    "dim": 3072,
    "n_layers": 28,
    "n_heads": 24,
    "multiple_of": 256,
    "ffn_dim_multiplier": 1.0,
}
CODE_LLAMA = LLAMA2_7B | {"rope_theta": 1e6}

# Published numbers of parameters; context in tokens, base and factor of the rotary embedding.
RELEASES = {
    "2 7B": (LLAMA2_7B, 6_738_415_616, 11008, 4096, 1e4, None),
    "2 13B": (LLAMA2_13B, 13_015_864_320, 13824, 4096, 1e4, None),
    "2 70B": (LLAMA2_70B, 68_976_648_192, 28672, 4096, 1e4, None),
    "Code Llama 7B": (CODE_LLAMA, 6_738_415_616, 11008, 16384, 1e6, None),
    "3 8B": (LLAMA3_8B, 8_030_261_248, 14336, 8192, 5e5, None),
    "3 70B": (LLAMA3_70B, 70_553_706_496, 28672, 8192, 5e5, None),
    "3.1 8B": (LLAMA31_8B, 8_030_261_248, 14336, 131072, 5e5, 8.0),
    "3.1 405B": (LLAMA31_405B, 405_853_388_800, 53248, 131072, 5e5, 8.0),
    "3.2 1B": (LLAMA32_1B, 1_235_814_400, 8192, 131072, 5e5, 32.0),
    "3.2 3B": (LLAMA32_3B, 3_212_749_824, 8192, 131072, 5e5, 32.0),
}


def read(params: dict[str, Any], vocab_size: int = 0, tied: bool = False) -> ModelConfig:
    rows = vocab_size or (32000 if params.get("vocab_size") == -1 else 128256)
    return ModelConfig.from_meta(json.loads(json.dumps(params)), vocab_size=rows, tied_embeddings=tied)


@pytest.mark.parametrize("name", RELEASES)
def test_releases(name: str) -> None:
    params, n_parameters, ffn_dim, context, theta, factor = RELEASES[name]
    config = read(params, tied=name.startswith("3.2"))
    assert config.n_parameters == n_parameters
    assert (config.ffn_dim, config.max_seq_len, config.rope_theta) == (ffn_dim, context, theta)
    assert config.n_kv_heads == params.get("n_kv_heads", params["n_heads"])
    scaling = config.rope_scaling
    assert (scaling and scaling.factor) == factor
    if scaling:
        assert (scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_context) == (1, 4, 8192)


def test_sizes_of_buffers_are_ignored() -> None:
    assert read(LLAMA3_8B | {"max_batch_size": 32, "max_seq_len": 2048}) == read(LLAMA3_8B)


def test_a_multiplier_of_null_is_none() -> None:
    assert read(LLAMA2_7B | {"ffn_dim_multiplier": None, "n_kv_heads": None}) == read(LLAMA2_7B)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no width": ({"dim": None}, "`dim` must be a whole number, got None"),
    "a width of text": ({"dim": "4096"}, "`dim` must be a whole number, got '4096'"),
    "a boolean": ({"n_layers": True}, "`n_layers` must be a whole number, got True"),
    "a fraction": ({"n_layers": 32.0}, "`n_layers` must be a whole number, got 32.0"),
    "no layers": ({"n_layers": 0}, "`n_layers` must be a whole number from 1 to 1024, got 0"),
    "2^63 layers": ({"n_layers": 2**63}, "from 1 to 1024, got 9223372036854775808"),
    "no heads": ({"n_heads": 0}, "`dim` (4096) must be a multiple of `n_heads`, got 0"),
    "heads that do not divide": ({"n_heads": 33}, "must be a multiple of `n_heads`, got 33"),
    "minus one kv head": ({"n_kv_heads": -1}, "must be a multiple of `n_kv_heads`, got -1"),
    "kv heads that do not divide": ({"n_kv_heads": 5}, "must be a multiple of `n_kv_heads`, got 5"),
    "an odd head": ({"dim": 32 * 127}, "`head_dim` must be even, got 127"),
    "a huge width": ({"dim": 2**400}, "`dim` must be at least 1 and fit 32 bits"),
    "a wide model": ({"dim": 2**20}, "`dim` must be a whole number from 1 to 65536, got 1048576"),
    "a negative width": ({"dim": -4096}, "`dim` must be at least 1 and fit 32 bits, got -4096"),
    "a step of 0": ({"multiple_of": 0}, "`multiple_of` must be from 1 to 65536"),
    "a huge step": ({"multiple_of": 2**31}, "got 2147483648 and 1.3"),
    "a multiplier of 0": ({"ffn_dim_multiplier": 0}, "above 0 and at most 16, got 1024 and 0.0"),
    "an infinite multiplier": ({"ffn_dim_multiplier": math.inf}, "got 1024 and inf"),
    "a multiplier of NaN": ({"ffn_dim_multiplier": math.nan}, "got 1024 and nan"),
    "another vocabulary": ({"vocab_size": 32000}, "must be the embedding's 128256 rows, or -1, got 32000"),
    "a base of 0": ({"rope_theta": 0}, "`rope_theta` must be at least 1 and finite, got 0.0"),
    "a base of NaN": ({"rope_theta": math.nan}, "`rope_theta` must be at least 1 and finite, got nan"),
    "a base of text": ({"rope_theta": "1e6"}, "`rope_theta` must be a number, got '1e6'"),
    "scaled maybe": ({"use_scaled_rope": 1}, "`use_scaled_rope` must be true or false, got 1"),
    "an epsilon of 1": ({"norm_eps": 1}, "`norm_eps` must be between 0 and 1, got 1.0"),
    "experts": ({"moe_args": {}}, "unknown keys ['moe_args']"),
    "vision": ({"vision_chunk_size": 560}, "`vision_chunk_size` says that this is a model with vision"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_params(case: str) -> None:
    changes, words = BAD[case]
    with pytest.raises(CheckpointError) as caught:
        read(LLAMA3_8B | changes)
    assert words in str(caught.value)
