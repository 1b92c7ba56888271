"""Conversations to token ids, and answers to tool calls: what models were taught to read and to write.

Owns messages and roles, the chat format of each kind of model, the words that tell a model of its tools, and
the parser of tool calls. Imports `puna.errors`, `puna.models` and `puna.tokens`; ``jinja2`` is loaded when a
model's own template is first used, ``jsonschema`` with the first tool. Start reading at `format.py` (what a
chat format is), then `select.py` (which one a model gets); for calls at `tool_calls.py`. What holds
everywhere: special tokens come from the format, never from a message, and no call is made up.
"""

from puna.prompt.call_text import CallStyle
from puna.prompt.format import ChatFormat
from puna.prompt.messages import Assistant, Image, Message, System, Tool, ToolCall, User, as_messages
from puna.prompt.preamble import Preamble
from puna.prompt.select import chat_format
from puna.prompt.tool_calls import ParsedAnswer, parse_tool_calls, parse_tool_ids
from puna.prompt.tool_stream import ToolCallStream
from puna.prompt.tools import BUILTIN_TOOLS, ToolDefinition, as_tools

__all__ = [
    "BUILTIN_TOOLS",
    "Assistant",
    "CallStyle",
    "ChatFormat",
    "Image",
    "Message",
    "ParsedAnswer",
    "Preamble",
    "System",
    "Tool",
    "ToolCall",
    "ToolCallStream",
    "ToolDefinition",
    "User",
    "as_messages",
    "as_tools",
    "chat_format",
    "parse_tool_calls",
    "parse_tool_ids",
]
