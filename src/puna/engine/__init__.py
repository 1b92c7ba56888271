"""Generation: requests in, events out, whatever computes them.

`request.py` has the words (settings, request, event, completion), `protocol.py` what an engine is,
`native.py` the C++ engine behind it, `scheduler.py` and `blocks.py` what it runs next and where the
cache lies. Imports `puna.errors`, `puna.models`, `puna.tokens`; never torch outside ``torch*.py``.
"""
