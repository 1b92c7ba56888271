"""What `puna serve` refuses before it serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--context", "0"), "`context` must be 2 to 8192 tokens for this model, got 0"),
        (("--drain", "inf"), "`drain_s` must be a finite number, 0 or more, got inf"),
        (("--memory", "0"), "--memory must be over 0 GB, and 1000000000 at most, got 0.0"),
        (("--memory", "inf"), "--memory must be over 0 GB, and 1000000000 at most, got inf"),
        (("--max-state", "nan"), "--max-state must be over 0 GB, and 1000000000 at most, got nan"),
    ],
)
def test_an_option_out_of_range_is_one_line(
    refused: Callable[..., str], options: Sequence[str], message: str
) -> None:
    assert refused("serve", "--port", 0, *options, status=2) == message
