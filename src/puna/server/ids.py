"""Identifiers that the server gives out."""

from __future__ import annotations

import secrets

__all__ = ["new_id"]

_BYTES = 12


def new_id(prefix: str, n_bytes: int = _BYTES) -> str:
    """A name that nobody can guess and that never comes twice.

    Args:
        prefix: what it names, such as ``chatcmpl-``.
        n_bytes: half the digits behind it.
    """
    return prefix + secrets.token_hex(n_bytes)
