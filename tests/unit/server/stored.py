"""What a client may have asked to keep."""

from __future__ import annotations

from typing import Any

from puna.server.state.completions import StoredCompletion
from puna.server.state.responses import StoredResponse

ODD = "\0 \ud800 \U0001f999 \\u0000 ' \" {{ x }}"
"""Characters that JSON has and databases have trouble with."""


def completion(key: str, **labels: str) -> StoredCompletion:
    return StoredCompletion(
        {"id": key, "model": "m", "said": ODD}, [{"role": "user", "content": ODD}], labels
    )


def response(key: str, previous: str | None = None, status: str = "completed", **more: Any) -> StoredResponse:
    body = {
        "id": key,
        "created_at": 1000,
        "status": status,
        "model": "m",
        "background": False,
        "previous_response_id": previous,
        "output": [{"id": f"out-{key}"}],
        **more,
    }
    return StoredResponse(body, [{"id": f"in-{key}"}])
