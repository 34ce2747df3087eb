"""The plan: into which batches waiting rows are cut, so that the time they are predicted to take is least.

Which size is fastest a row depends on caches and kernels, and is rarely the largest; rows that do not fill a batch may
run padded in a larger one, or in several smaller ones. Enters: the seconds of a batch of each size that may be
executed. Leaves: for any number of rows, sizes that hold them. All sizes give the same bytes, so a plan never shows in
values.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate

__all__ = ["BatchPlan", "BatchTimes", "plan_batches"]


_EXACT = 2  # times the largest size: up to so many rows the cut is the best there is


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How to cut rows.

    Attributes:
        bulk: the size that is fastest a row.
        first: first[n] is the size to begin with when n rows wait; first[0] is not read.
    """

    bulk: int
    first: tuple[int, ...]

    def cut(self, rows: int) -> list[int]:
        """Cut rows into batches, those that may be padded last.

        Args:
            rows: how many wait, 0 or more.

        Returns:
            Sizes to execute in order; all but the last are filled.
        """
        exact = len(self.first) - 1
        sizes = [self.bulk] * max(0, -(-(rows - exact) // self.bulk))
        rows -= self.bulk * len(sizes)
        while rows > 0:
            sizes.append(self.first[rows])
            rows -= sizes[-1]
        return sizes


def plan_batches(seconds: Mapping[int, float]) -> BatchPlan:
    """Plan by the predicted time of each size.

    Args:
        seconds: of one batch, for each size that may be executed; never empty. A size that seems slower than a larger
            one is taken to be as fast: rows can always be padded.
    """
    sizes = tuple(sorted(seconds))
    rising = accumulate((seconds[size] for size in reversed(sizes)), min)
    return _plan(sizes, tuple(rising)[::-1])


@lru_cache(maxsize=64)
def _plan(sizes: tuple[int, ...], seconds: tuple[float, ...]) -> BatchPlan:
    """Find the best first size for each number of rows, from fewer to more (dynamic programming)."""
    descending = list(zip(sizes, seconds, strict=True))[::-1]
    first, least = [0], [0.0]
    for rows in range(1, _EXACT * sizes[-1] + 1):
        # Of equals the first tried: one padded batch before several, and larger ones before smaller ones.
        covering = bisect_left(sizes, rows)
        best = sizes[covering] if covering < len(sizes) else 0
        best_cost = seconds[covering] if best else math.inf
        for size, cost in descending[max(0, len(sizes) - covering) :]:
            if cost + least[rows - size] < best_cost:
                best, best_cost = size, cost + least[rows - size]
        first.append(best)
        least.append(best_cost)
    _, bulk = min((cost / size, -size) for size, cost in descending)
    return BatchPlan(bulk=-bulk, first=tuple(first))


# FOLDED FROM handlers.execution.batch_plan:
# Batch times: how long a batch of each size takes now, kept up to date while batches run. What was measured at
# load grows old: other workers start, another program takes a core. So every batch that runs moves the estimate
# of its size, one stall moving it little, and the plan follows when an estimate has moved far enough. A size
# that did not run for long is believed as it was measured again, so that one bad hour does not rule it out for
# ever.


_SLOWEST_GAIN = 0.1  # share of a new time in an estimate that has seen many
_STALL = 2.0  # times the estimate: what a slower batch counts as
_MOVED = 0.05  # share by which an estimate must have moved for a new plan
_FORGOTTEN = 256  # batches after which a size that did not run is believed as measured


@dataclass(kw_only=True)
class BatchTimes:
    """Seconds of a batch of each executed size.

    Attributes:
        measured: at load, for each size that may be executed; never empty.
    """

    measured: Mapping[int, float]
    _now: dict[int, float] = field(init=False)
    _planned: dict[int, float] = field(init=False)
    _seen: dict[int, int] = field(init=False)
    _idle: dict[int, int] = field(init=False)
    _plans: dict[int, BatchPlan] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._now = dict(self.measured)
        self._planned = dict(self.measured)
        self._seen = dict.fromkeys(self.measured, 1)
        self._idle = dict.fromkeys(self.measured, 0)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that may be executed, ascending."""
        return tuple(sorted(self.measured))

    @property
    def seconds(self) -> Mapping[int, float]:
        """What a batch of each size takes now."""
        return dict(self._now)

    def plan(self, largest: int) -> BatchPlan:
        """Plan with the sizes up to the largest that there is memory for."""
        if largest not in self._plans:
            fitting = {size: seconds for size, seconds in self._planned.items() if size <= largest}
            self._plans[largest] = plan_batches(fitting)
        return self._plans[largest]

    def observe(self, size: int, seconds: float) -> None:
        """Learn from a batch that ran."""
        estimate = self._now[size]
        gain = max(_SLOWEST_GAIN, 1 / (self._seen[size] + 1))
        self._now[size] = estimate + gain * (min(seconds, _STALL * estimate) - estimate)
        self._seen[size] += 1
        self._forget_others(size)
        if any(abs(now - self._planned[other]) > _MOVED * self._planned[other] for other, now in self._now.items()):
            self._planned = dict(self._now)
            self._plans.clear()

    def _forget_others(self, size: int) -> None:
        for other in self._idle:
            self._idle[other] = 0 if other == size else self._idle[other] + 1
            if self._idle[other] == _FORGOTTEN:
                self._now[other], self._seen[other], self._idle[other] = self.measured[other], 1, 0
