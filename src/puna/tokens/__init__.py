"""Text to token ids and back: one tokenizer class over every vocabulary, and decoding of a stream.

Imports `puna._native`, `puna.errors` and `puna.models`. Start reading at `tokenizer.py`; the work is done
in `csrc/tokens`. What holds everywhere: the text of a special
token never becomes that token, and a stream never shows half a character.
"""

from puna.tokens.stream import TextStream
from puna.tokens.tokenizer import Tokenizer

__all__ = ["TextStream", "Tokenizer"]
