from __future__ import annotations

import pytest
from benchmarks.plain_client import Stream, tokens_of

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def test_an_event_is_there_when_its_last_byte_is():
    answer = Stream(0.0, [(1.0, HEAD), (2.0, b'1a\r\ndata: {"text": '), (3.0, b'"a"}\n\n\r\n')])
    answer.pieces.append((4.0, b'data: {"usage": {"completion_tokens": 7}}\n\ndata: [DONE]\n\n'))
    events = answer.events()
    assert events == [(3.0, {"text": "a"}), (4.0, {"usage": {"completion_tokens": 7}})]
    assert tokens_of(events) == 7


@pytest.mark.parametrize(
    ("data", "message"), [(b"HTTP/1.1 404 Not Found\r\n", "404"), (HEAD, "no event"), (b"", "answered")]
)
def test_what_is_no_stream_is_told(data: bytes, message: str):
    with pytest.raises(RuntimeError, match=message):
        Stream(0.0, [(1.0, data)]).events()


@pytest.mark.parametrize("event", [{"text": "a"}, {"usage": None}])
def test_an_answer_that_tells_no_tokens_does_not_count_as_none(event: dict[str, object]):
    with pytest.raises(RuntimeError, match="tells its tokens"):
        tokens_of([(1.0, event)])
