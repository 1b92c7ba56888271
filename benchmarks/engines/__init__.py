"""The engines that are compared, each in a file of its own behind one small protocol.

An engine is loaded from a file, takes a prompt of token ids and gives greedy tokens. It may keep what it
keeps between prompts (a cache of the last one): a measure that must not profit from that gives new prompts.
Its file is imported only in the process that runs it, and has one function, ``load(path, settings)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

__all__ = ["ENGINES", "Engine", "EngineKind", "Settings", "Times", "Unsupported", "load"]


class Unsupported(Exception):
    """What was asked is not there in this engine, which is no failure of the run."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one prompt and its answer, and how many of its positions were known before."""

    prefill_s: float
    decode_s: float  # of all tokens but the first
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """What an engine is loaded for.

    Attributes:
        threads: threads that compute, for prompts and answers alike.
        context: positions that one prompt and its answer take at most.
        requests: how many of them there are at once at most.
        options: of the kind of engine, see `EngineKind`.
    """

    threads: int
    context: int
    requests: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """A loaded model."""

    def run(self, prompt: Sequence[int], n_new: int) -> Times:
        """One prompt and its answer of exactly `n_new` tokens."""
        ...

    def run_together(self, prompts: Sequence[Sequence[int]], n_new: int) -> None:
        """Several prompts at once, each with an answer of exactly `n_new` tokens."""
        ...

    def facts(self) -> dict[str, float]:
        """What only the engine knows: ``weight_bytes`` and ``cache_bytes`` a token reads or adds."""
        ...


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine as it is offered on the command line.

    Attributes:
        name: for people.
        module: its file in this package.
        package: what must be importable for it to run.
        distribution: what pip calls that.
        files: kinds of files it runs (`benchmarks.model_files`), by what it calls their format.
        options: told to ``load``.
    """

    name: str
    module: str
    package: str
    distribution: str
    files: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_installed(self) -> bool:
        return find_spec(self.package) is not None

    @property
    def version(self) -> str:
        try:
            return version(self.distribution)
        except PackageNotFoundError:  # a source tree on the path
            return str(getattr(import_module(self.package), "__version__", "unknown"))


_GGUF = {"Q4_0": "gguf-q4_0", "BF16": "gguf-bf16", "Q4_1": "default-gguf"}

ENGINES = {
    kind.name: kind
    for kind in (
        EngineKind(
            "puna", "puna", "puna", "puna",
            {"int4": "puna-int4", "bf16": "puna-bf16", "Q4_1": "default-puna"},
        ),
        EngineKind("llama.cpp", "llama_cpp", "llama_cpp", "llama-cpp-python", _GGUF),
        EngineKind(
            "llama.cpp flash", "llama_cpp", "llama_cpp", "llama-cpp-python", _GGUF,
            {"flash_attention": True},
        ),
        EngineKind(
            "openvino", "openvino_genai", "openvino_genai", "openvino-genai", {"Q4_0": "gguf-q4_0"}
        ),
        EngineKind("executorch", "executorch", "executorch", "executorch", {"8da4w": "pte-8da4w"}),
        EngineKind("transformers", "transformers", "transformers", "transformers", {"bf16": "hf-bf16"}),
    )
}  # fmt: skip


def load(name: str, path: Path, settings: Settings) -> Engine:
    """Load a model into one of `ENGINES`."""
    engine: Engine = import_module(f"benchmarks.engines.{ENGINES[name].module}").load(path, settings)
    return engine
