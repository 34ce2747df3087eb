"""Batch planning: split waiting rows into batches so that the predicted total time is least.

The fastest size per row depends on caches and kernels and is rarely the largest; rows that do not fill a batch may run
padded in a larger one, or in several smaller ones. The time of each executable size enters; sizes that hold a number of
rows leave. All sizes give the same bytes, so a plan never changes values.

Times measured at load become outdated when other workers start or another program uses a core. `BatchTimes` therefore
updates the estimate of a size with every batch that runs, and plans anew when an estimate has changed enough.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

__all__ = ["BatchPlan", "BatchTimes", "plan_batches"]

_EXACT = 2  # times the largest size: up to so many rows the split is optimal
_MIN_GAIN = 0.1  # weight of a new time in an estimate from many batches
_MAX_RATIO = 2.0  # to the estimate: slower batches count as this, so that one stall changes little
_REPLAN_CHANGE = 0.05  # relative change of an estimate that causes a new plan
_IDLE_BATCHES = 256  # after so many others, the estimate of a size that did not run is reset to its measured time


@dataclass(kw_only=True)
class BatchPlan:
    """How to split rows.

    Attributes:
        seconds: of one batch, for each size, ascending in both.
    """

    seconds: Mapping[int, float]
    # By the number of waiting rows, computed as far as needed: the size to run first, and the time of all.
    _first: list[int] = field(init=False, default_factory=lambda: [0])
    _least: list[float] = field(init=False, default_factory=lambda: [0.0])

    def split(self, rows: int) -> list[int]:
        """Split rows into batches.

        Args:
            rows: waiting, 0 or more.

        Returns:
            Sizes to execute in order; only the last may be padded.
        """
        exact, bulk = _EXACT * max(self.seconds), self._bulk
        sizes = [bulk] * max(0, -(-(rows - exact) // bulk))
        rows -= bulk * len(sizes)
        self._extend(rows)
        while rows > 0:
            sizes.append(self._first[rows])
            rows -= sizes[-1]
        return sizes

    @cached_property
    def _bulk(self) -> int:
        """The size that is fastest per row."""
        return -min((cost / size, -size) for size, cost in self.seconds.items())[1]

    def _extend(self, rows: int) -> None:
        """Find the best first size for up to so many rows, from fewer to more (dynamic programming)."""
        sizes = list(self.seconds)
        descending = list(self.seconds.items())[::-1]
        for count in range(len(self._first), rows + 1):
            # Of equal costs the first one tried wins: a padded batch over several, and larger sizes over smaller ones.
            covering = bisect_left(sizes, count)
            best = sizes[covering] if covering < len(sizes) else 0
            best_cost = self.seconds[best] if best else math.inf
            for size, cost in descending[max(0, len(sizes) - covering) :]:
                if cost + self._least[count - size] < best_cost:
                    best, best_cost = size, cost + self._least[count - size]
            self._first.append(best)
            self._least.append(best_cost)


@dataclass(kw_only=True)
class BatchTimes:
    """Seconds of a batch of each executable size, updated while batches run.

    Attributes:
        measured: at load, for each executable size; never empty.
    """

    measured: Mapping[int, float]
    _now: dict[int, float] = field(init=False)
    _planned: dict[int, float] = field(init=False)
    _plans: dict[int, BatchPlan] = field(init=False, default_factory=dict)  # by the largest size
    _seen: dict[int, int] = field(init=False)
    _idle: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self._now = dict(self.measured)
        self._planned = dict(self.measured)
        self._seen = dict.fromkeys(self.measured, 1)
        self._idle = dict.fromkeys(self.measured, 0)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The executable sizes, ascending."""
        return tuple(sorted(self.measured))

    @property
    def seconds(self) -> Mapping[int, float]:
        """The current estimate for a batch of each size."""
        return dict(self._now)

    def plan(self, largest: int) -> BatchPlan:
        """Plan with the sizes up to the largest that fits into memory."""
        plan = self._plans.get(largest)
        if plan is None:
            plan = plan_batches({size: seconds for size, seconds in self._planned.items() if size <= largest})
            self._plans[largest] = plan
        return plan

    def observe(self, size: int, seconds: float) -> None:
        """Update the estimates with a batch that ran."""
        estimate = self._now[size]
        gain = max(_MIN_GAIN, 1 / (self._seen[size] + 1))
        self._now[size] = estimate + gain * (min(seconds, _MAX_RATIO * estimate) - estimate)
        self._seen[size] += 1
        self._reset_idle(size)
        planned = self._planned
        if any(abs(now - planned[other]) > _REPLAN_CHANGE * planned[other] for other, now in self._now.items()):
            self._planned = dict(self._now)
            self._plans.clear()

    def _reset_idle(self, size: int) -> None:
        """Reset sizes that did not run for long, so that one slow period does not exclude them forever."""
        for other in self._idle:
            self._idle[other] = 0 if other == size else self._idle[other] + 1
            if self._idle[other] == _IDLE_BATCHES:
                self._now[other], self._seen[other], self._idle[other] = self.measured[other], 1, 0


def plan_batches(seconds: Mapping[int, float]) -> BatchPlan:
    """Plan by the predicted time of each size.

    Args:
        seconds: of one batch, for each executable size; never empty. A size that seems slower than a larger one is
            taken to be as fast, because rows can always be padded.
    """
    sizes = sorted(seconds)
    rising = accumulate((seconds[size] for size in reversed(sizes)), min)
    return BatchPlan(seconds=dict(zip(sizes, list(rising)[::-1], strict=True)))
