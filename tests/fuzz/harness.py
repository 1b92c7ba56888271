"""Feeds damaged files to a parser, see `damage.py`.

A parser may take a file or refuse it with an error of Puna's; anything else is a bug. Each ``fuzz_*.py``
has ``seeds()``, good files to begin with, and ``parse(data, folder)``. pytest runs a few hundred files of
each. To try other ones for as long as one likes, say ten minutes::

    PYTHONPATH=. python -m tests.fuzz.fuzz_gguf 600
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz.damage import damaged

from puna.errors import CheckpointError, DownloadError, PromptFormatError, TokenizerError

Seeds = Callable[[], list[bytes]]
Parse = Callable[[bytes, Path], object]

# What a file may say must not come back in full: a message is for people.
MAX_MESSAGE = 2_000


def accepts(parse: Parse, data: bytes, folder: Path) -> bool:
    """Whether the parser takes a file; any error but one of Puna's, with a message to read, gets through."""
    try:
        parse(data, folder)
    except (CheckpointError, DownloadError, PromptFormatError, TokenizerError) as error:
        message = str(error)
        assert len(message) <= MAX_MESSAGE, f"a message of {len(message)} characters: {message[:200]}"
        return False
    return True


def mutations(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Damaged files, the same ones for the same number."""
    rng = random.Random(seed)
    for _ in range(count):
        yield damaged(rng, seeds)


def main(seeds: Seeds, parse: Parse) -> None:
    """Try new files for the seconds that the command line gives; keep the first that is a bug."""
    end = time.monotonic() + float(sys.argv[1])
    rng, good, count = random.Random(), seeds(), 0
    with tempfile.TemporaryDirectory() as name:
        while time.monotonic() < end:
            data = damaged(rng, good)
            started = time.monotonic()
            try:
                accepts(parse, data, Path(name))
            except BaseException:
                found = Path(tempfile.mkdtemp()) / "found"
                found.write_bytes(data)
                print(f"{parse.__module__}: {found}")
                raise
            if time.monotonic() - started > 5:
                print(f"slow ({time.monotonic() - started:.1f} s): {data[:300]!r}")
            count += 1
    print(f"{count} files")
