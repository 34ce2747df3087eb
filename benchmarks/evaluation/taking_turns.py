"""Two ways to the same number, timed in rounds that take turns, so that a busy moment meets both."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["SpeedRow", "peak_mib", "take_turns"]


@dataclass(frozen=True)
class SpeedRow:
    """One computation, done by both; medians over rounds.

    Attributes:
        name: what.
        seconds_ours: wall clock.
        seconds_theirs: wall clock.
        library: whose.
        ratio: theirs / ours; above 1: ours is faster.
        peak_mib_ours: the most memory that NumPy held beside the features; None: not looked at.
    """

    name: str
    seconds_ours: float
    seconds_theirs: float
    library: str
    ratio: float
    peak_mib_ours: float | None = None


def take_turns(
    name: str, library: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> SpeedRow:
    """Time both, once each has run: imports, buffers and threads are not counted."""
    peak = peak_mib(ours)
    theirs()
    turns = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
    mine, others = (statistics.median(side) for side in zip(*turns, strict=True))
    return SpeedRow(name, mine, others, library, others / mine, peak)


def peak_mib(work: Callable[[], object]) -> float:
    """The most MiB that NumPy held while it ran, beside what was held before."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
