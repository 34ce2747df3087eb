"""Interleaved timing of two implementations, so that a busy moment affects both."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.rows import Bound, Row

__all__ = ["SpeedRow", "peak_mib", "speed_to_row", "time_interleaved"]


@dataclass(frozen=True)
class SpeedRow:
    """The times of one computation in both implementations; medians over rounds.

    Attributes:
        name: of the computation, with its sizes.
        seconds_ours: wall clock.
        seconds_theirs: wall clock.
        library: the other implementation.
        ratio: theirs / ours; above 1: ours is faster.
        peak_mib_ours: peak memory of NumPy in addition to the features; None: not measured.
    """

    name: str
    seconds_ours: float
    seconds_theirs: float
    library: str
    ratio: float
    peak_mib_ours: float | None = None


def time_interleaved(
    name: str, library: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> SpeedRow:
    """Time both after a warm-up run of each."""
    peak = peak_mib(ours)
    theirs()
    times = [(_time(ours), _time(theirs)) for _ in range(rounds)]
    mine, others = (statistics.median(side) for side in zip(*times, strict=True))
    return SpeedRow(name, mine, others, library, others / mine, peak)


def peak_mib(work: Callable[[], object]) -> float:
    """Measure the peak memory of NumPy during a computation, in MiB in addition to the memory before."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def _time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speed_to_row(speed: SpeedRow) -> Row:
    """Convert to a row whose ratio is how many times faster Fount is."""
    return Row(
        workload=speed.name, precision="float64", value=_format_seconds(speed.seconds_ours),
        reference=f"{speed.library} {_format_seconds(speed.seconds_theirs)}", ratio=speed.ratio,
        bound=Bound(must=1.0),
    )  # fmt: skip


def _format_seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"
