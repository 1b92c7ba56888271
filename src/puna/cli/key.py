"""``puna key``: API keys for ``puna serve``; and the one in the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from puna.cli.output import say
from puna.errors import ConfigError, StoreError

__all__ = ["environment_key", "key"]


def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is: letters, digits and ._@-")],
    file: Annotated[
        Path, typer.Option("--file", metavar="FILE", help="File of `puna serve --keys`; a line is added.")
    ],
) -> None:
    """Make an API key.

    It is printed here and kept nowhere: the file gets its digest.
    """
    from puna.server.door.keys import hashed, key_line, new_key

    if not re.fullmatch(r"[\w.@-]{1,64}", name):
        raise ConfigError(f"a key's name is 1 to 64 letters, digits and ._@-, got {name!r:.100}")
    made = new_key()
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as opened:
            opened.write(key_line(hashed(name, made)) + "\n")
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror or error}") from error
    typer.echo(made)
    say(f"added to {file}; start the server again to let the key in")


def environment_key() -> str | None:
    """The key of ``PUNA_API_KEY``, without blanks or a newline around it; None where it is not set.

    Raises:
        ConfigError: it is empty, or no header can have it.
    """
    given = os.environ.get("PUNA_API_KEY")
    if given is None:
        return None
    found = given.strip()
    if not (found and found.isascii() and found.isprintable()):
        what = "others in it" if found else "none"
        raise ConfigError(
            f"PUNA_API_KEY must be a key, of printable ASCII characters, got {what}; unset it to use no key"
        )
    return found
