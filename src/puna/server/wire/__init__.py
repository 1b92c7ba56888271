"""How requests are read and responses written: strict JSON, event streams, and clients that go away.

Imports `puna.server.errors`, the door's `asgi.py` and below. Start at `strict.py`.
"""
