"""The order in which things are measured: round after round, each through all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.engines import Unsupported
from benchmarks.process import Failed, Process

__all__ = ["Outcome", "run_rounds"]


@dataclass(slots=True)
class Outcome:
    """What came of one of the things that are compared.

    Attributes:
        values: one a round, up to the round in which there was a problem.
        problem: why there are no more.
        facts: what the engine said of itself.
    """

    values: list[float] = field(default_factory=list)
    problem: str | None = None
    facts: dict[str, float] = field(default_factory=dict)


def run_rounds(
    starts: Sequence[Callable[[], Process]],
    repeats: int,
    *,
    is_fresh: bool,
    before_round: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Measure several things in turn; every round begins with another one.

    Args:
        starts: each starts the process of one of them.
        repeats: rounds.
        is_fresh: every value gets a process of its own; else each has one that lives through all rounds.
        before_round: called at the beginning of each.
    """
    outcomes = [Outcome() for _ in starts]
    processes: dict[int, Process] = {}
    with ExitStack() as alive:
        for round in range(repeats):
            before_round()
            for place in range(len(starts)):
                i = (place + round) % len(starts)
                outcome = outcomes[i]
                if outcome.problem is not None:
                    continue
                try:
                    process = processes.pop(i, None) or alive.enter_context(starts[i]())
                    outcome.values.append(process.value())
                    if is_fresh or round == repeats - 1:
                        outcome.facts = process.facts()
                    else:
                        processes[i] = process
                except Unsupported as error:
                    outcome.problem = f"unsupported, {error}"
                except Failed as error:
                    outcome.problem = str(error)
    return outcomes
