"""Stop texts in a stream: nothing that may turn out to be part of one is let out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["StopTexts", "first_stop"]


def first_stop(text: str, stops: Iterable[str]) -> tuple[int, str] | None:
    """The stop text that is complete first, however the text arrives; of several at once the longest.

    Args:
        text: where to look.
        stops: what to look for.

    Returns:
        Where it begins and what it is; None where there is none.
    """
    found = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    return min(found)[1:] if found else None


class StopTexts:
    """Holds text back while it could be the beginning of a stop text."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Watch for these texts; with none, everything passes at once."""
        self._texts = tuple(texts)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Add new text.

        Returns:
            What may be let out, and whether a stop text was met; after that nothing more is let out.
        """
        self._held += text
        found = first_stop(self._held, self._texts)
        if found is not None:
            return self._held[: found[0]], True
        keep = self._longest_beginning()
        out = self._held[: len(self._held) - keep]
        self._held = self._held[len(out) :]
        return out, False

    def finish(self) -> str:
        """What was held back and is now certain not to be a stop text."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self) -> int:
        """Length of the longest tail of the held text with which a stop text begins."""
        longest = 0
        for stop in self._texts:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest
