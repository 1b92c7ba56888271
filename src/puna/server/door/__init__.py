"""Who and what comes in: addresses, keys, sizes. Plain ASGI around the app, so that no route can forget it.

Imports `puna.server.errors`, settings and `puna.server.hosting`. `protocol.py` stands in front of even
that: what may come in on a connection. Start at `hosts.py`; `app.py` has the order.
"""
