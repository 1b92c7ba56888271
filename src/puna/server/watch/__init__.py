"""Seeing what the server does: log and metrics.

Imports `puna.engine`, and `puna.server.errors` in `requests.py`. Start at `log.py`.
"""
