"""What libraries say becomes lines of the log, without their words."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import warnings
from typing import Any

import pytest
import uvloop

from puna.server.watch.libraries import libraries_logged

SECRET = "a confidence"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the handlers of servers that run for other tests."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


def lines_of(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    text = capfd.readouterr().err
    assert SECRET not in text
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in text.splitlines()]


def test_records(capfd: pytest.CaptureFixture[str]) -> None:
    library = logging.getLogger("some.library")
    with libraries_logged():
        library.info(SECRET)
        library.warning("%s", SECRET)
        try:
            raise ValueError(SECRET)
        except ValueError:
            library.exception(SECRET)
        library.error("cut off", exc_info=asyncio.CancelledError())
        logging.getLogger("uvicorn.error").warning("Cancel %d tasks", 2)
    library.warning(SECRET)
    here = test_records.__code__.co_firstlineno
    source = {"logger": "some.library", "level": "warning"}
    failed = {"logger": "some.library", "level": "error", "kind": "ValueError"}
    assert lines_of(capfd) == [
        {"event": "library", **source, "where": [f"test_libraries.py:{here + 4}"]},
        {"event": "error", **failed, "where": [f"test_libraries.py:{here + 6}"]},
        {"event": "uvicorn", "problem": "Cancel 2 tasks"},
    ]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_task_whose_end_nobody_sees(new_loop: Any, capfd: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise ValueError(SECRET)

    async def forget() -> None:
        await asyncio.wait([asyncio.create_task(fail())])

    with libraries_logged(), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(forget())
        gc.collect()
    (line,) = lines_of(capfd)
    assert (line["event"], line["logger"], line["kind"]) == ("error", "asyncio", "ValueError")
    assert line["where"][-1].startswith("test_libraries.py:")


def test_warnings(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        show = warnings.showwarning
        with libraries_logged():
            warnings.warn(SECRET, RuntimeWarning, stacklevel=1)
            line = sys._getframe().f_lineno - 1
        assert warnings.showwarning is show
    assert lines_of(capfd) == [
        {"event": "warning", "kind": "RuntimeWarning", "where": [f"test_libraries.py:{line}"]}
    ]
