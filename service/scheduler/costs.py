"""What work costs: cost = a + b · samples · steps, in seconds of one worker.

The times of a worker's batches at warm-up enter first and give the line; then what every answered call took, which says
how much slower or faster than at warm-up everything runs now. Costs of calls not yet made leave.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["CostModel"]

_GUESS_S = 1e-3  # a sample of a model nobody measured; the first calls correct it
_NEW_SHARE = 0.2  # of the latest call in what is known of the pace
_TRUST = 3.0  # a call is believed up to so many times its expected cost either way: a stopped process is no news


class CostModel:
    """The costs of one target's calls.

    Args:
        batch_seconds: batch sizes a worker executes, and the seconds one of each took at warm-up; may be empty.

    Attributes:
        smallest: the smallest batch executed: fewer samples cost no less.
        granule: the batch size that costs least a sample.
        per_call_s: a, as it is now.
        per_unit_s: b, as it is now.
    """

    def __init__(self, batch_seconds: Mapping[int, float]) -> None:
        known = {size: seconds for size, seconds in batch_seconds.items() if seconds > 0 and math.isfinite(seconds)}
        best = min(known, key=lambda size: known[size] / size, default=1)
        self.smallest, self.granule = min(known, default=1), best
        self.per_call_s = 0.0
        self.per_unit_s = known[best] / best if known else _GUESS_S
        if known:
            self.per_call_s = max(0.0, known[self.smallest] - self.smallest * self.per_unit_s)

    def seconds(self, units: float) -> float:
        """The expected cost of a call of so many samples · steps."""
        return self.per_call_s + self.per_unit_s * units

    def units_within(self, seconds: float) -> float:
        """How many samples · steps one call may hold to cost at most so much; 0 when not one."""
        return max(0.0, (seconds - self.per_call_s) / self.per_unit_s)

    def learn(self, units: float, seconds: float) -> None:
        """Take in what a call took.

        Args:
            units: its samples · steps, above 0.
            seconds: its time in the worker.
        """
        if units <= 0 or not (seconds > 0 and math.isfinite(seconds)):
            return
        pace = min(max(seconds / self.seconds(units), 1 / _TRUST), _TRUST)
        scale = 1 + _NEW_SHARE * (pace - 1)
        self.per_call_s *= scale
        self.per_unit_s *= scale
