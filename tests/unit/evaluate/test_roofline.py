from __future__ import annotations

import pytest

from puna.errors import NativeError
from puna.evaluate import roofline
from puna.evaluate.roofline import Limit, multiply_rate, stream_read


def test_limit():
    """A token of 2 GB at 20 GB/s: ten a second at most, and four are 40 % of them."""
    limit = Limit.of(4.0, per_token=2e9, per_s=20e9)
    assert limit == Limit(per_token=2e9, per_s=20e9, tokens_per_s=10.0, reached=0.4)


def test_rates_are_of_this_planet():
    assert 1e8 < stream_read(1) < 1e13
    assert 1e8 < multiply_rate(2) < 1e15


@pytest.mark.parametrize("threads", [0, 2000])
def test_threads_out_of_range(threads: int):
    with pytest.raises(NativeError, match="the number of threads must be 1 to 1024"):
        stream_read(threads)
    with pytest.raises(NativeError, match="the number of threads must be 1 to 1024"):
        multiply_rate(threads)


def test_public_names():
    assert all(hasattr(roofline, name) for name in roofline.__all__)
