"""Making a file in one step, all of it or nothing: `new_file`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from puna.errors import StoreError
from puna.models.new_folder import require_new
from puna.models.room import require_room

__all__ = ["new_file"]


@contextmanager
def new_file(out: Path, n_bytes: int) -> Iterator[Path]:
    """Give the path of a temporary file to write, which becomes `out` at the end, or vanishes after an error.

    Args:
        out: the file to make; it must not exist yet.
        n_bytes: what will be written; the disk must have as much.

    Yields:
        The path to write to; there is nothing at it.

    Raises:
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    require_new(out)
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        require_room(out.parent, n_bytes)
        yield temporary
        temporary.rename(out)
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # of a name that is too long, which was told of
            temporary.unlink(missing_ok=True)
