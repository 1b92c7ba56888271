"""Takes off what stands around a whole answer that was decoded with its special tokens."""

from __future__ import annotations

__all__ = ["AnswerMarks"]

_HEADER = "<|start_header_id|>assistant<|end_header_id|>\n\n"
_ENDS = {"<|eot_id|>": True, "<|eom_id|>": False}


class AnswerMarks:
    """Spaces at both ends, the assistant's header before an answer, and the end mark behind it.

    Attributes:
        ends_turn: what the end mark says; None where there is none.
    """

    def __init__(self) -> None:
        """Start before the answer."""
        self.ends_turn: bool | None = None
        self._head: str | None = ""
        self._mark = ""
        self._n_spaces = 0

    def push(self, text: str) -> str:
        """Add text; returns what certainly is none of the marks."""
        if self._head is not None:
            text = (self._head + text).lstrip(" ")
            if _HEADER.startswith(text):
                self._head = text
                return ""
            self._head = None
            text = text.removeprefix(_HEADER)
        if not text.strip(" ") and (self._n_spaces or not self._mark or self._mark in _ENDS):
            self._n_spaces += len(text)
            return ""
        text = self._mark + " " * self._n_spaces + text
        body = text.rstrip(" ")
        self._n_spaces = len(text) - len(body)
        self._mark = _end_of(body, whole=self._n_spaces > 0)
        return body[: len(body) - len(self._mark)]

    def finish(self) -> str:
        """End the answer; returns what turned out to be no mark."""
        rest = (self._head or "") + self._mark
        if rest in _ENDS:
            self.ends_turn = _ENDS[rest]
            return ""
        return "" if rest == _HEADER else rest


def _end_of(text: str, *, whole: bool) -> str:
    """The end mark, or unless `whole` its beginning, with which a text ends."""
    for length in range(min(len(text), max(map(len, _ENDS))), 0, -1):
        tail = text[-length:]
        if tail in _ENDS or (not whole and any(mark.startswith(tail) for mark in _ENDS)):
            return tail
    return ""
