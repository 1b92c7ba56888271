"""Every error that Puna raises on purpose.

The tree::

    PunaError
    |- ConfigError (ValueError)    a setting or argument is out of range
    |  `- ConstraintError          an answer cannot be held to what was asked
    |- UnknownModelError           no model has that name
    |- StoreError                  the local model store cannot do it
    |  `- DownloadError            a file could not be fetched whole
    |- CheckpointError             a model file is damaged, hostile or not supported
    |- TokenizerError              a vocabulary cannot be used, or an id is not in it
    |- PromptFormatError           messages cannot be put into the model's chat format
    |- CapacityError               a prompt or a cache does not fit
    |- EngineError                 the engine failed or was closed
    |- ServerError                 a server cannot be reached, or refused
    |- StateError                  the server's database cannot be used
    `- NativeError                 the native library refused a call

A message says what was wrong, what was needed, what was found and what to do next.
The command line prints it to stderr and exits with the class's ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CapacityError",
    "CheckpointError",
    "ConfigError",
    "ConstraintError",
    "DownloadError",
    "EngineError",
    "NativeError",
    "PromptFormatError",
    "PunaError",
    "ServerError",
    "StateError",
    "StoreError",
    "TokenizerError",
    "UnknownModelError",
    "nearest",
]


class PunaError(Exception):
    """Base of every error that Puna raises on purpose; catch it to catch them all."""

    exit_code = 1


class ConfigError(PunaError, ValueError):
    """A setting or an argument is out of range: correct the value named in the message."""

    exit_code = 2


class ConstraintError(ConfigError):
    """An answer cannot be held to what was asked: correct or simplify the schema, pattern or grammar."""


class UnknownModelError(PunaError):
    """No model has that name: pick one that the message lists, or give a path."""

    exit_code = 2


class StoreError(PunaError):
    """The local model store cannot do what was asked (disk full, not writable, not there)."""


class DownloadError(StoreError):
    """A file could not be fetched whole; what arrived is kept, and the same call goes on from there."""


class CheckpointError(PunaError):
    """A model file is damaged, hostile, incomplete or of a kind that is not supported."""


class TokenizerError(PunaError):
    """A vocabulary cannot be used, or a token id does not belong to it."""


class PromptFormatError(PunaError):
    """Messages cannot be put into the model's chat format (a bad role, or a base model with no format)."""


class CapacityError(PunaError):
    """A prompt or a cache does not fit; the message has both numbers. Nothing is cut silently."""


class EngineError(PunaError):
    """The engine failed while it worked, or was used after it was closed."""


class ServerError(PunaError):
    """A server cannot be reached, refused what was asked, or failed at it."""


class StateError(PunaError):
    """The server's database is damaged, from a newer Puna, full, or cannot be reached."""


class NativeError(PunaError):
    """The native library refused a call: an unknown instruction set, a wrong size, no memory."""


def nearest(word: str, valid: Iterable[str]) -> str:
    """Say which names are valid, the likely one first: the tail of an "unknown name" message.

    Args:
        word: the name that was not found.
        valid: the names that are known.

    Returns:
        ``did you mean 'x'? known: x, y, z``; without a question where nothing is close.
    """
    names = sorted(valid)
    close = get_close_matches(word, names, n=1)
    listing = "known: " + ", ".join(names) if names else "none are known"
    return f"did you mean {close[0]!r}? {listing}" if close else listing
