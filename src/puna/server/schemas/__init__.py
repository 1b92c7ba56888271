"""Bodies of requests and responses as pydantic models, which are the OpenAPI document too.

One file a route group. Imports nothing of Puna but `puna.server.ids`. Start at `base.py`.
"""
