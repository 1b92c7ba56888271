"""Bodies of requests and responses as pydantic models, which are the OpenAPI document too.

One file a route group, or one each for bodies, replies and events where that is long. Imports nothing of Puna
but `puna.constraints`, `puna.engine.request` and `puna.errors`. Start at `base.py`.
"""
