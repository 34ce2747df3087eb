"""What work costs: cost = a + b · samples · steps, in seconds of one worker.

Warm-up times of a worker's batches enter first, then what every answered call took; costs of calls not yet made leave.
The line is fitted by least squares whose weights fade, so that it follows a machine that grows slower or faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["CostModel"]

_GUESS_S = 1e-3  # a sample of a model nobody measured; the first calls correct it
_FADE = 0.95  # weight of what is known, with each call
_TRUST = 4.0  # a call is believed up to so many times its expected cost either way: a stopped process is no news
_SPREAD = 0.1  # relative spread of call sizes from which on a and b can be told apart


class CostModel:
    """The costs of one target's calls.

    Args:
        batch_seconds: batch sizes a worker executes, and the seconds one of each took at warm-up; may be empty.

    Attributes:
        smallest: the smallest batch executed: fewer samples cost no less.
        granule: the batch size that costs least a sample.
        per_call_s: a.
        per_unit_s: b.
    """

    def __init__(self, batch_seconds: Mapping[int, float]) -> None:
        known = {size: seconds for size, seconds in batch_seconds.items() if seconds > 0 and math.isfinite(seconds)}
        best = min(known, key=lambda size: known[size] / size, default=1)
        self.smallest, self.granule = min(known, default=1), best
        self.per_call_s = 0.0
        self.per_unit_s = known[best] / best if known else _GUESS_S
        if known:
            self.per_call_s = max(0.0, known[self.smallest] - self.smallest * self.per_unit_s)
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

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
        expected = self.seconds(units)
        seconds = min(max(seconds, expected / _TRUST), expected * _TRUST)
        for name, value in (("_weight", 1.0), ("_x", units), ("_y", seconds),
                            ("_xx", units * units), ("_xy", units * seconds)):  # fmt: skip
            setattr(self, name, getattr(self, name) * _FADE + value)
        self._fit()

    def _fit(self) -> None:
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        variance = self._xx / self._weight - mean_x * mean_x
        if variance > (_SPREAD * mean_x) ** 2:
            slope = (self._xy / self._weight - mean_x * mean_y) / variance
        else:
            slope = (mean_y - min(self.per_call_s, mean_y / 2)) / mean_x
        # Neither part may be below 0; a line through the origin and the mean is always possible.
        slope = min(slope, mean_y / mean_x) if slope > 0 else mean_y / mean_x
        self.per_unit_s, self.per_call_s = slope, max(0.0, mean_y - slope * mean_x)
