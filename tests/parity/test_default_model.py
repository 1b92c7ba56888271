"""The default model against transformers on the same, dequantized weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from puna import Llama, load
from puna.engine.native import NativeEngine
from puna.models.open import open_checkpoint

PROMPTS = [
    "Why do llamas hum?", "The capital of Peru is", "def fibonacci(n):", "Once upon a time", "2 + 2 =",
    "List three colours.", "Translate to French: good morning", "The quick brown fox", "Water boils at",
    "In 1969, humans", "Write a haiku about rain.", "SELECT name FROM", "Dear Sir or Madam,", "Ingredients:",
    "The opposite of hot is", "import numpy as np\n", "She opened the door and", "Q: What is a llama?\nA:",
    "\u00bfC\u00f3mo est\u00e1s?", "Once more unto the breach, dear friends,",
]  # fmt: skip


@pytest.fixture(scope="module")
def reference(default_gguf: Path) -> Any:
    checkpoint = open_checkpoint(default_gguf)
    model = LlamaForCausalLM(LlamaConfig(**checkpoint.config.to_hf())).eval()
    weights = {name: torch.from_numpy(checkpoint.tensor(name).to_float32()) for name in checkpoint.dtypes}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert missing in ([], ["lm_head.weight"])
    assert not unexpected
    model.tie_weights()
    return model


@pytest.fixture(scope="module")
def ours(default_gguf: Path) -> Iterator[Llama]:
    with load(str(default_gguf), format="f32") as llama:
        yield llama


def test_greedy_tokens_are_the_same(ours: Llama, reference: Any) -> None:
    prompts = [ours.chat_format.encode_text(prompt) for prompt in PROMPTS]
    streams = [ours.stream(p, temperature=0.0, max_tokens=64, ignore_eos=True) for p in prompts]
    for prompt, stream in zip(prompts, streams, strict=True):
        tokens = list(stream.result().tokens)
        assert len(tokens) == 64
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + tokens[:-1]])).logits[0]
        # Equal at every place given the same tokens before it: by induction, the same greedy text.
        assert logits[len(prompt) - 1 :].argmax(-1).tolist() == tokens


def test_perplexity_is_the_same_to_four_digits(ours: Llama, reference: Any) -> None:
    readme = Path(__file__).parents[2] / "LICENSE"
    tokens = ours.tokenizer.encode(readme.read_text(encoding="utf-8"))[:2000]
    assert len(tokens) == 2000
    scores = [each.logprob for each in ours.engine.score(tokens).result()]
    mine = math.exp(-float(np.mean(scores)))
    with torch.no_grad():
        logits = reference(torch.tensor([tokens])).logits[0, :-1].double()
    picked = torch.log_softmax(logits, -1).gather(1, torch.tensor(tokens[1:])[:, None])
    assert mine == pytest.approx(math.exp(-picked.mean().item()), rel=1e-4)


def test_embeddings_are_the_mean_hidden_state(ours: Llama, reference: Any) -> None:
    texts = ["A llama hums.", "The price of copper rose."]
    vectors = ours.embed(texts, normalize=False)
    for text, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            hidden = reference.model(torch.tensor([ours.chat_format.encode_text(text)])).last_hidden_state
        np.testing.assert_allclose(vector, hidden[0].mean(0).numpy(), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(ours.embed(texts), axis=1), 1, rtol=1e-6)


def test_an_int8_cache_costs_little(default_gguf: Path, ours: Llama, reference: Any) -> None:
    text = (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8")
    tokens = ours.tokenizer.encode(text)[:600]
    with torch.no_grad():
        exact = torch.log_softmax(reference(torch.tensor([tokens])).logits[0].double(), -1)
    with load(str(default_gguf), format="f32", cache="int8") as llama:
        assert isinstance(llama.engine, NativeEngine)
        found = torch.log_softmax(torch.from_numpy(np.asarray(llama.engine.logits(tokens))).double(), -1)
    divergence = (exact.exp() * (exact - found)).sum(-1)
    # docs/formats.md has 0.0003 and 99 % for 2,048 tokens of prose.
    assert 1e-7 < divergence.mean() < 1e-3
    assert (exact.argmax(-1) == found.argmax(-1)).double().mean() > 0.97
