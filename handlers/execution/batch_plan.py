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
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

__all__ = ["BatchPlan", "plan_batches"]

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
