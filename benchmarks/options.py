"""Kinds of numbers on the command lines."""

from __future__ import annotations

from argparse import ArgumentTypeError

__all__ = ["positive", "share"]


def positive(text: str) -> int:
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"must be from 0 to 1, got {value}")
    return value
