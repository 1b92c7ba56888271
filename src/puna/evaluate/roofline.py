"""What the machine allows at most, and how near a model comes to it.

A decoded token needs every weight once, and the keys and values of the positions before it: however good the
kernels, it cannot come faster than these bytes are read. A prompt needs the product of every weight with
every token: it cannot be read faster than these are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

from puna import _native

__all__ = ["Limit", "Roofline", "multiply_rate", "stream_read"]

_READ_BYTES = 1 << 29  # several times the largest cache of most machines
_PASSES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A speed that cannot be passed.

    Attributes:
        per_token: what a token needs.
        per_s: what the machine does of it in a second.
        tokens_per_s: the limit, the one over the other.
        reached: the measured speed over the limit.
    """

    per_token: float
    per_s: float
    tokens_per_s: float
    reached: float

    @classmethod
    def of(cls, tokens_per_s: float, *, per_token: float, per_s: float) -> Limit:
        """Hold a measured speed against what a token needs and the machine does."""
        limit = per_s / per_token
        return cls(per_token=per_token, per_s=per_s, tokens_per_s=limit, reached=tokens_per_s / limit)


@dataclass(frozen=True, kw_only=True, slots=True)
class Roofline:
    """The limits of a model.

    Attributes:
        decode: in bytes, those of the weights and of the keys and values in the middle of the answer.
        prefill: in products of integers; None where weights are floats.
    """

    decode: Limit
    prefill: Limit | None


def stream_read(threads: int) -> float:
    """Bytes a second that the machine reads from memory, in order and with nothing else to do.

    Args:
        threads: how many read together.

    Returns:
        The best of a few passes over half a gigabyte.

    Raises:
        NativeError: there is no memory for it.
    """
    return _native.read_rate(threads, _READ_BYTES, _PASSES)


def multiply_rate(threads: int) -> float:
    """Products of bytes a second that the machine computes and adds up, without reading memory.

    Args:
        threads: how many compute together.

    Returns:
        The best of a few passes with the instruction set that the kernels use.
    """
    return _native.multiply_rate(threads, _PASSES)
