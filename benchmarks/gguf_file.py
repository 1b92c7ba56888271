"""Quantizing a GGUF file by llama.cpp's own code, as its users do."""

from __future__ import annotations

from pathlib import Path


def quantize_q4_0(source: Path, target: Path) -> None:
    """llama.cpp's own Q4_0 of a bf16 file, as its users run it."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    done = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    if done != 0:
        raise SystemExit(f"llama.cpp could not quantize {source}: {done}")
