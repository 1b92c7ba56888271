"""How requests are read and responses written: strict JSON, event streams, and clients that go away.

Imports `puna.server.errors` and below. Start at `strict.py`.
"""
