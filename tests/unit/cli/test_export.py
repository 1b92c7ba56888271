from __future__ import annotations

import pytest
from tests.tiny import save_tiny

from puna.models.open import open_checkpoint


def test_says_sizes_and_the_licence(puna, tmp_path):
    out = tmp_path / "small.gguf"
    done = puna("export", "smollm2", out, "--to", "gguf")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.splitlines()[1:] == [
        f"{out}: {out.stat().st_size / 1e6:.1f} MB as gguf",
        "licence: Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0",
        "  who passes the weights on passes on the licence and its notices",
    ]


def test_says_what_is_rounded(puna, tmp_path):
    save_tiny(tmp_path / "tiny")
    done = puna("export", tmp_path / "tiny", tmp_path / "out", "--to", "huggingface", "--format", "int8")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[2:] == ["note: numbers of 21 of 21 tensors are rounded to bfloat16"]
    assert set(open_checkpoint(tmp_path / "out").dtypes.values()) == {"BF16"}


def test_what_is_made_from_a_llama_is_called_llama(refused, tmp_path):
    message = refused("export", "llama3.2-1b", tmp_path / "small.gguf", "--to", "gguf", status=2)
    assert message.endswith("got 'small.gguf'; call it Llama-small.gguf")


@pytest.mark.parametrize(("target", "nearest"), [("ggml", "gguf"), ("hugging-face", "huggingface")])
def test_an_unknown_target(refused, default_gguf, tmp_path, target, nearest):
    message = refused("export", default_gguf, tmp_path / "out", "--to", target, status=2)
    assert message.startswith(f"target '{target}' is unknown")
    assert nearest in message
