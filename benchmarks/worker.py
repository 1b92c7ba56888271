"""One engine in a process of its own: the other end of `benchmarks.process`.

Its one argument says what to do, as JSON. For every line on its input it measures once; every line of its
output is JSON too: ``{"ready": facts}``, ``{"value": number}`` or ``{"unsupported": reason}``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TextIO

from benchmarks.engines import Settings, Unsupported, load
from benchmarks.measures import MEASURES, Run


def main() -> None:
    job = json.loads(sys.argv[1])
    # What an engine prints goes to the errors, so that the output holds answers only.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        _serve(job, answers)
    except Unsupported as error:
        _answer(answers, {"unsupported": str(error)})


def _serve(job: dict[str, object], answers: TextIO) -> None:
    measure = MEASURES[str(job["measure"])]
    settings = Settings(
        threads=int(str(job["threads"])),
        context=measure.context,
        requests=measure.requests,
        options=dict(job["options"]),  # type: ignore[call-overload]
    )
    engine, path = str(job["engine"]), Path(str(job["path"]))
    run = Run(path, float(str(job["started"])), lambda: load(engine, path, settings), int(str(job["seed"])))
    measure.prepare(run)
    _answer(answers, {"ready": True})
    for _ in sys.stdin:
        _answer(answers, {"value": measure.value(run)})
    _answer(answers, {"facts": run.engine.facts() if "engine" in vars(run) else {}})


def _answer(answers: TextIO, message: dict[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
