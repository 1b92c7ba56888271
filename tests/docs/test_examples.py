"""The programs of examples/, each on something tiny."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from puna.llama import load
from puna.nn.checkpoint import load as load_torch

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = (
    "--steps", "30", "--batch", "2", "--length", "32", "--vocabulary", "300", "--dim", "32", "--layers", "1",
    "--heads", "4", "--kv-heads", "2", "--ffn", "64", "--learning-rate", "0.01",
)  # fmt: skip


def test_a_small_llama_is_trained_and_loads_everywhere(tmp_path: Path) -> None:
    texts, out = tmp_path / "texts", tmp_path / "model"
    texts.mkdir()
    for n in range(30):
        (texts / f"{n:02}.txt").write_text(f"Llama number {n} hums at {n * n} hertz. " * 5)
    command = [sys.executable, EXAMPLES / "train_small_llama.py", texts, out, *SMALL]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "30: loss " in first.stdout
    assert [path.name for path in (tmp_path / "model.held-out").iterdir()] == ["25.txt"]
    theirs, ours = LlamaForCausalLM.from_pretrained(out), load_torch(str(out))
    tokens = torch.tensor([AutoTokenizer.from_pretrained(out).encode("Llama number 3 hums")])
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)
    with load(str(out)) as llama:
        assert llama.tokenizer.encode("Llama number 3 hums") == tokens[0].tolist()
        assert llama.generate("Llama number", max_tokens=3).tokens
    # All steps are done: the same command makes the same model again and no step.
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "loss" not in again.stdout
    # Other texts are another run, and the state is that of the first.
    (texts / "03.txt").write_text("Alpacas spit.")
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "an unfinished run with another texts; ask for the same again" in other.stderr
    for path in sorted(texts.iterdir())[:5]:
        path.unlink()
    few = subprocess.run(command, capture_output=True, text=True, check=False)
    assert few.returncode == 1
    assert "has 25 files, of which one is to be held out: give 26 or more" in few.stderr
    assert "Traceback" not in few.stderr
