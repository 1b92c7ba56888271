"""Who and what comes in: addresses, keys, sizes. Plain ASGI around the app, so that no route can forget it.

Imports `puna.server.errors` and settings. Start at `hosts.py`; `app.py` has the order.
"""
