"""Puna: the whole Llama 3 system in one package.

Importing this module costs nothing; what is named here is loaded when it is first used.

>>> import puna
>>> llama = puna.load("smollm2-135m-instruct")
>>> llama.generate("Once upon a time", temperature=0.8, seed=7).text
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from puna.constraints.forms import Choices, JsonSchema, Lark, Regex
    from puna.engine.request import Completion, Event, SamplingParams, TokenLogprob, Usage
    from puna.errors import PunaError
    from puna.llama import AsyncStream, Llama, Stream, load
    from puna.prompt.messages import Assistant, Message, System, Tool, User
    from puna.text_generation import pipeline

__version__ = "0.1.0"

_HOME = {
    "Assistant": "puna.prompt.messages",
    "AsyncStream": "puna.llama",
    "Choices": "puna.constraints.forms",
    "Completion": "puna.engine.request",
    "Event": "puna.engine.request",
    "JsonSchema": "puna.constraints.forms",
    "Lark": "puna.constraints.forms",
    "Llama": "puna.llama",
    "Message": "puna.prompt.messages",
    "PunaError": "puna.errors",
    "Regex": "puna.constraints.forms",
    "SamplingParams": "puna.engine.request",
    "Stream": "puna.llama",
    "System": "puna.prompt.messages",
    "TokenLogprob": "puna.engine.request",
    "Tool": "puna.prompt.messages",
    "Usage": "puna.engine.request",
    "User": "puna.prompt.messages",
    "load": "puna.llama",
    "pipeline": "puna.text_generation",
}

__all__ = [
    "Assistant",
    "AsyncStream",
    "Choices",
    "Completion",
    "Event",
    "JsonSchema",
    "Lark",
    "Llama",
    "Message",
    "PunaError",
    "Regex",
    "SamplingParams",
    "Stream",
    "System",
    "TokenLogprob",
    "Tool",
    "Usage",
    "User",
    "load",
    "pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'puna' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
