"""Answers of models: whatever is said is calls, text or both, and the same in one piece or in many."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fuzz.harness import main

from puna.prompt import BUILTIN_TOOLS, ToolCallStream, ToolDefinition, parse_tool_calls
from puna.prompt.call_events import CallEnded, TextDelta

GOLDEN = Path(__file__).parents[1] / "golden" / "tool_parse.jsonl"
SCHEMA = {"type": "object", "properties": {"a": {"type": ["integer", "object", "array"]}}}
TOOLS = [*BUILTIN_TOOLS.values(), *(ToolDefinition(name, "", SCHEMA) for name in ("f", "g", "get_weather"))]


def seeds() -> list[bytes]:
    lines = GOLDEN.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [text.encode() for line in lines if (text := json.loads(line)["text"])]


def parse(data: bytes, folder: Path) -> None:
    text = data.decode("utf-8", "replace")
    whole = parse_tool_calls(text, TOOLS)
    stream = ToolCallStream(TOOLS)
    events = [event for i in range(0, len(text), 3) for event in stream.push(text[i : i + 3])]
    events += stream.finish()
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == whole.text
    assert repr([e.call for e in events if isinstance(e, CallEnded)]) == repr(list(whole.calls))
    assert stream.ends_turn == whole.ends_turn
    for call in whole.calls:
        json.dumps(dict(call.arguments), allow_nan=False)


if __name__ == "__main__":
    main(seeds, parse)
