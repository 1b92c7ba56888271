"""Seeing what the server does: log, metrics and traces.

Imports `puna.engine`, and `puna.server.errors` in `requests.py`. Start at `log.py`.
"""
