from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import save_tiny

from puna.errors import ConfigError
from puna.nn.checkpoint import load
from puna.train.adaptors import adaptor_parameters, add_adaptors

TOKENS = torch.arange(40)[None] * 7 % 260


@pytest.mark.parametrize("tied", [True, False])
def test_they_add_nothing_at_first_and_learn(tied: bool, tmp_path: Path) -> None:
    save_tiny(tmp_path, tie_word_embeddings=tied)
    plain = load(str(tmp_path))
    model = add_adaptors(plain, rank=4, scale=2.0)
    assert (model.config.lora_rank, model.config.lora_scale) == (4, 2.0)
    assert torch.equal(model(TOKENS), plain(TOKENS))
    shared = dict(plain.named_parameters())
    parameters = adaptor_parameters(model)
    assert len(parameters) == 2 * 7 * 2
    assert {n: p for n, p in model.named_parameters() if n in shared}.keys() == shared.keys()
    assert all(p is shared[n] for n, p in model.named_parameters() if n in shared)
    model(TOKENS).sum().backward()
    for name, parameter in parameters.items():
        assert (parameter.grad.abs().sum() > 0) == ("lora_B" in name), name


def test_the_same_seed_gives_the_same(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    first, second, third = (add_adaptors(load(str(tmp_path)), seed=seed) for seed in (0, 0, 1))
    name = "model.layers.1.mlp.down_proj.lora_A.weight"
    assert torch.equal(first.get_parameter(name), second.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), third.get_parameter(name))


def test_wrong_things_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    model = load(str(tmp_path))
    with pytest.raises(ConfigError, match="`rank` must be from 1 to the model's width of 48, got 49"):
        add_adaptors(model, rank=49)
    with pytest.raises(ConfigError, match="has adaptors of rank 4 already"):
        add_adaptors(add_adaptors(model, rank=4))
