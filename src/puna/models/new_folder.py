"""Making a folder in one step, all of it or nothing: `new_folder`, `require_new`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from puna.errors import StoreError
from puna.models.room import require_room

__all__ = ["new_folder", "require_new"]


def require_new(out: Path) -> None:
    """Refuse to write over what is there, before a long job begins.

    Raises:
        StoreError: `out` exists, or its name is none that a file can have.
    """
    try:
        out.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{str(out)!r:.100} cannot be made: {reason}; choose another name") from error
    raise StoreError(f"{out} exists already; remove it first or choose another name")


@contextmanager
def new_folder(out: Path, n_bytes: int) -> Iterator[Path]:
    """Give a temporary folder to fill, which becomes `out` at the end, or vanishes after an error.

    Args:
        out: the folder to make; it must not exist yet.
        n_bytes: what will be written; the disk must have as much.

    Yields:
        The folder to fill.

    Raises:
        StoreError: `out` exists, cannot be written, or the disk is too full.
    """
    require_new(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    except OSError as error:
        raise StoreError(f"{out} cannot be made: {error.strerror or error}") from error
    try:
        require_room(temporary, n_bytes)
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(out)
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
