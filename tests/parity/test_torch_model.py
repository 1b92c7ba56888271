"""The torch model's logits against transformers, full tensors, whole and in pieces, in every layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import LLAMA3_ROPE, VARIANTS, save_tiny
from transformers import LlamaConfig, LlamaForCausalLM

from puna.models.open import open_checkpoint
from puna.nn.checkpoint import from_checkpoint, load, save_huggingface
from puna.nn.model import KeyValueCache, Transformer

TOLERANCE = 1e-4  # float32 sums in another order; logits are of size 1 to 20


def tokens_of(n: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 260, (batch, n), generator=torch.Generator().manual_seed(0))


def worst(model: Transformer, reference: Any, tokens: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model(tokens) - reference(tokens).logits).abs().max())


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    reference = save_tiny(tmp_path, **VARIANTS[name])
    assert worst(load(str(tmp_path)), reference, tokens_of(200)) < TOLERANCE


def test_a_long_text_equals_transformers(tmp_path: Path) -> None:
    reference = save_tiny(tmp_path, rope_parameters=LLAMA3_ROPE)
    assert worst(load(str(tmp_path)), reference, tokens_of(900, 1)) < TOLERANCE


def test_float64_logits_equal_transformers(tmp_path: Path) -> None:
    # Exact formulas, not only close ones; transformers computes norms and rotary angles in float32.
    reference = save_tiny(tmp_path).double()
    assert worst(load(str(tmp_path), dtype=torch.float64), reference, tokens_of(100)) < 1e-4


def test_gradients_equal_transformers(tmp_path: Path) -> None:
    reference = save_tiny(tmp_path, tie_word_embeddings=True)
    model, tokens = load(str(tmp_path)), tokens_of(50)
    theirs = dict(reference.named_parameters())
    for logits in (model(tokens), reference(tokens).logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("cuts", [[1, 2, 3, 40], [39, 40], [17, 40]])
def test_a_text_in_pieces_equals_the_whole(cuts: list[int], tmp_path: Path) -> None:
    reference = save_tiny(tmp_path, rope_parameters=LLAMA3_ROPE)
    model, tokens = load(str(tmp_path)), tokens_of(40)
    cache = KeyValueCache(model.config, batch=2, capacity=64)
    with torch.no_grad():
        pieces = [model(tokens[:, a:b], cache) for a, b in zip([0, *cuts[:-1]], cuts, strict=True)]
        expected = reference(tokens).logits
    assert int(cache.length) == 40
    torch.testing.assert_close(torch.cat(pieces, 1), expected, atol=TOLERANCE, rtol=0)


def test_transformers_loads_what_is_written(tmp_path: Path) -> None:
    reference = save_tiny(tmp_path / "in", rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True)
    source = open_checkpoint(tmp_path / "in")
    model = from_checkpoint(source, dtype=torch.bfloat16)
    save_huggingface(model, source.vocabulary(), tmp_path / "out")
    theirs = LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype="auto", attn_implementation="eager")
    assert theirs.dtype == torch.bfloat16
    assert theirs.config.tie_word_embeddings
    for name, parameter in reference.named_parameters():
        assert torch.equal(dict(theirs.named_parameters())[name], parameter.bfloat16())
    assert worst(load(str(tmp_path / "out")), theirs.float(), tokens_of(60)) < TOLERANCE


def test_the_default_model_equals_transformers(default_gguf: Path) -> None:
    model = load(str(default_gguf))
    reference = LlamaForCausalLM(LlamaConfig(**model.config.to_hf())).eval()
    reference.load_state_dict(model.state_dict())
    tokens = torch.randint(0, 49152, (1, 400), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(tokens).logits
        error = (model(tokens) - expected).abs().max()
    assert float(error) < 1e-3, f"logits up to {float(expected.abs().max())}"
