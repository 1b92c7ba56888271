"""A limit on how fast bytes may come in."""

from __future__ import annotations

import time
from collections.abc import Callable

from puna.errors import ConfigError

__all__ = ["RateLimit", "parse_rate"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


class RateLimit:
    """Makes its callers wait so that, all together, they take so many bytes a second on average."""

    def __init__(self, bytes_per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing taken.

        Args:
            bytes_per_s: at least 1.
            clock: seconds; for tests.

        Raises:
            ConfigError: the rate is less.
        """
        if not bytes_per_s >= 1:
            raise ConfigError(f"the rate must be at least 1 byte a second, got {bytes_per_s!r}")
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at = clock()

    def take(self, n_bytes: int) -> None:
        """So many bytes came in: wait until the next may."""
        now = self._clock()
        # A pause is not made up for later: the limit would not hold in the burst after it.
        self._free_at = max(self._free_at, now) + n_bytes / self._bytes_per_s
        time.sleep(self._free_at - now)


def parse_rate(text: str) -> float:
    """Read a rate as people write it: ``500k``, ``5M``, ``1.5MB``, in bytes a second, in thousands.

    Raises:
        ConfigError: it is not of that form, or less than 1 byte a second.
    """
    number = text.strip().lower().removesuffix("/s").removesuffix("b")
    unit = number[-1:] if number[-1:] in _UNITS else ""
    try:
        rate = float(number.removesuffix(unit)) * _UNITS[unit]
    except ValueError:
        rate = 0.0
    if not 1 <= rate < float("inf"):
        raise ConfigError(f"a rate must be at least 1 byte a second, written as 500k or 5M, got {text!r}")
    return rate
