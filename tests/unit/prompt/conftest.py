"""Chat formats on Llama 3's vocabulary, and golden messages as objects."""

from __future__ import annotations

from typing import Any

import pytest

from puna.models.checkpoint import Vocabulary
from puna.models.tiktoken_vocabulary import LLAMA3_SPECIAL_TOKENS, tokenizer_json_from_tiktoken
from puna.prompt import Assistant, Image, Message, System, Tool, ToolCall, ToolDefinition, User
from puna.prompt.call_text import CallStyle
from puna.prompt.llama3 import Llama3Format
from puna.prompt.messages import Content
from puna.prompt.tools import BUILTIN_TOOLS
from puna.tokens import Tokenizer


@pytest.fixture(scope="session")
def llama3_format(llama3: Tokenizer) -> Llama3Format:
    return Llama3Format(llama3)


@pytest.fixture(scope="session")
def april_vocabulary(llama3_data: bytes) -> Vocabulary:
    """The first Llama 3's: no token for waiting, none for code."""
    names = ["reserved_a", "reserved_b", *("reserved_" + str(i) for i in range(250))]
    later = ("<|eom_id|>", "<|python_tag|>", "<|image|>", "<|finetune_right_pad_id|>", "<|step_id|>")
    texts = [f"<|{names.pop()}|>" if text in later else text for text in LLAMA3_SPECIAL_TOKENS]
    text = tokenizer_json_from_tiktoken(llama3_data, texts)
    return Vocabulary(tokenizer_json=text, bos_id=128000, eos_ids=(128001,), add_bos=True)


@pytest.fixture(scope="session")
def vision_vocabulary(llama3_data: bytes) -> Vocabulary:
    """Llama 3.2 Vision's as transformers has it: a token for pictures behind all others."""
    texts = ["<|reserved_image|>" if text == "<|image|>" else text for text in LLAMA3_SPECIAL_TOKENS]
    text = tokenizer_json_from_tiktoken(llama3_data, [*texts, "<|image|>"])
    return Vocabulary(tokenizer_json=text, bos_id=128000, eos_ids=(128001, 128008, 128009), add_bos=True)


@pytest.fixture(scope="session")
def vision_tokenizer(vision_vocabulary: Vocabulary) -> Tokenizer:
    return Tokenizer(vision_vocabulary)


def golden_content(raw: Any) -> Content:
    if isinstance(raw, str):
        return raw
    return tuple(part["text"] if part["type"] == "text" else Image(part.get("data")) for part in raw)


def golden_message(raw: dict[str, Any]) -> Message:
    """A message in the words of Meta's reference."""
    content = golden_content(raw["content"])
    if raw["role"] == "assistant":
        calls = [ToolCall(c["tool_name"], c["arguments"], c["call_id"]) for c in raw.get("tool_calls", ())]
        return Assistant(content, raw.get("stop_reason") != "end_of_message", tuple(calls))
    if raw["role"] == "user":
        return User(content, golden_content(raw["context"]) if "context" in raw else None)
    return {"system": System, "tool": Tool}[raw["role"]](content)


def golden_tool(raw: dict[str, Any]) -> ToolDefinition:
    """A tool in the words of Meta's reference."""
    if raw["tool_name"] in BUILTIN_TOOLS:
        return BUILTIN_TOOLS[raw["tool_name"]]
    properties = {
        name: {"type": given["param_type"], "description": given["description"]}
        | ({} if given["default"] is None else {"default": given["default"]})
        for name, given in raw["parameters"].items()
    }
    required = [name for name, given in raw["parameters"].items() if given["required"]]
    schema = {"type": "object", "properties": properties, "required": required}
    return ToolDefinition(raw["tool_name"], raw["description"], schema)


def reference_style(form: Any) -> CallStyle:
    return CallStyle(form=form or "json", is_reference=True)
