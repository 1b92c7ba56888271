"""Prompts and answers with their special tokens made visible."""

from __future__ import annotations

from collections.abc import Iterable

from puna.prompt.format import Piece, Special
from puna.prompt.images import IMAGE_ID, IMAGE_TOKEN
from puna.tokens import TextStream, Tokenizer

__all__ = ["VisibleStream", "visible_ids", "visible_pieces"]

Segment = tuple[str, bool]
"""A text, and whether it is a special token."""


class VisibleStream:
    """`TextStream` that shows special tokens, and says which texts are such."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Start with nothing decoded.

        Args:
            tokenizer: the vocabulary.
        """
        self._tokenizer = tokenizer
        self._stream = TextStream(tokenizer)

    def push(self, token_id: int) -> list[Segment]:
        """Add a token.

        Args:
            token_id: a token, or a picture's.

        Returns:
            The texts that are complete with it; a special token parts an unfinished character before it.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        if token_id == IMAGE_ID and token_id >= self._tokenizer.vocab_size:
            name = IMAGE_TOKEN
        elif self._tokenizer.is_special(token_id):
            name = self._tokenizer.special_text(token_id)
        else:
            text = self._stream.push(token_id)
            return [(text, False)] if text else []
        return [*self.finish(), (name, True)]

    def finish(self) -> list[Segment]:
        """End the stream: U+FFFD for an unfinished character, else nothing."""
        rest = self._stream.finish()
        return [(rest, False)] if rest else []


def visible_ids(tokenizer: Tokenizer, ids: Iterable[int]) -> list[Segment]:
    """Texts of token ids, neighbouring plain ones joined.

    Raises:
        TokenizerError: an id is not in the vocabulary.
    """
    stream = VisibleStream(tokenizer)
    return _joined([*(segment for i in ids for segment in stream.push(i)), *stream.finish()])


def visible_pieces(pieces: Iterable[Piece]) -> list[Segment]:
    """Texts of pieces, neighbouring plain ones joined."""
    return _joined((p.text, True) if isinstance(p, Special) else (p, False) for p in pieces)


def _joined(segments: Iterable[Segment]) -> list[Segment]:
    joined: list[Segment] = []
    for text, is_special in segments:
        if joined and not is_special and not joined[-1][1]:
            joined[-1] = (joined[-1][0] + text, False)
        elif text:
            joined.append((text, is_special))
    return joined
