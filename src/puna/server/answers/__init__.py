"""From a checked request to an engine's events, and from events to what clients are told.

Knows nothing of HTTP. Imports `puna.llama` and below, and `puna.server.hosting`. Start at `generation.py`
(running answers), then `conversation.py` (messages to a prompt) and `chat_answer.py` (events to deltas).
"""
