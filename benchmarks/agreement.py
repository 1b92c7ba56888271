"""Whether another program computes the same from a file that Puna wrote: a text, token by token.

Usage, where the program is installed::

    python -m benchmarks.agreement MODEL FILE --text TEXT

``FILE`` is what ``puna export`` made of ``MODEL``: a ``.gguf`` file for llama.cpp, a ``.pte`` file for
ExecuTorch, a folder for transformers. Both programs see the same tokens; printed is how often they find the
same one likeliest, and how far their predictions are apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.evaluate.compare import Agreement, agreement_of
from puna.llama import load

__all__ = ["logits_of_file", "main"]


def logits_of_file(path: Path, tokens: list[int]) -> NDArray[np.float32]:
    """Logits ``[tokens, vocabulary]`` of the program that the file is for."""
    if path.is_dir():
        return _transformers(path, tokens)
    return _executorch(path, tokens) if path.suffix == ".pte" else _llama_cpp(path, tokens)


def _llama_cpp(path: Path, tokens: list[int]) -> NDArray[np.float32]:
    import llama_cpp

    llama = llama_cpp.Llama(str(path), n_ctx=len(tokens), n_batch=len(tokens), logits_all=True, verbose=False)
    llama.eval(tokens)
    return np.array(llama.scores[: len(tokens)], np.float32)


def _transformers(path: Path, tokens: list[int]) -> NDArray[np.float32]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        return np.asarray(model(torch.tensor([tokens])).logits[0])


def _executorch(path: Path, tokens: list[int]) -> NDArray[np.float32]:
    import executorch.extension.llm.custom_ops.custom_ops
    import executorch.kernels.quantized  # noqa: F401 - the embedding
    import torch
    from executorch.extension.pybindings.portable_lib import _load_for_executorch

    program = _load_for_executorch(str(path))  # it gives the logits of the last token only
    steps = [(torch.tensor([[token]]), torch.tensor([i])) for i, token in enumerate(tokens)]
    rows = [program.run_method("forward", step)[0].flatten().numpy().copy() for step in steps]
    return np.stack(rows)


def main(arguments: list[str] | None = None) -> Agreement:
    """Compare what the command line names, and print the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement")
    parser.add_argument("model", help="name or path of the model for Puna")
    parser.add_argument("file", type=Path, help="what was exported of it")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--format", default="auto", help="how Puna holds the weights")
    given = parser.parse_args(arguments)
    with load(given.model, format=given.format, context=given.tokens) as llama:
        tokens = llama.tokenizer.encode(given.text.read_text(encoding="utf-8"))[: given.tokens]
        ours = llama.engine.logits(tokens)  # type: ignore[attr-defined]
    theirs = logits_of_file(given.file, tokens)
    found = agreement_of([(ours[:-1], theirs[:-1], tokens[1:])])
    print(
        json.dumps(
            {
                "tokens": len(tokens),
                "mean_kl": found.mean_kl,
                "top1_agreement": found.top1_agreement,
                "perplexity": found.perplexity,
                "reference_perplexity": found.reference_perplexity,
            },
            indent=2,
        )
    )
    return found


if __name__ == "__main__":
    main()
