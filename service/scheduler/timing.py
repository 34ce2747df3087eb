"""Predict how long worker calls take, and when the next one should leave.

`CostModel` starts from the batch times that workers measured at warm-up and follows the times of answered calls.
`DispatchTiming` follows the calls in flight: a worker that runs one call needs the next only when that ends. Until
shortly before, whatever arrives can still share the next call, be overtaken or be cancelled, at no loss.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

__all__ = ["CostModel", "DispatchTiming"]

_MAX_RATIO = 3.0  # a measured time counts as at most so many times the expected one: a paused process is an outlier

_DEFAULT_SAMPLE_S = 1e-3  # a sample of a model without measurements; the first calls correct it
_COST_WEIGHT = 0.2  # of the latest call in the moving average

_INITIAL_ROUND_TRIP_S = 0.004
_MIN_ROUND_TRIP_S = 1e-4
_TIMING_WEIGHT = 0.1  # of the latest measurement in the moving averages
_QUIET_S = 0.003  # without an arrival: no others are on their way
_MAX_BATCHING_S = 0.012  # of the first that waits for others
_OPEN_DECAY = 0.99  # of the usual number of open streams, by each arrival
_LEAD_ROUND_TRIPS = 0.75  # how long before a worker is expected to be idle the next call is sent


class CostModel:
    """The expected time of one target's calls: a + b · units, in seconds of one worker.

    A unit is one step of one sample of the model's own size.

    Args:
        batch_seconds: batch sizes a worker executes, and the seconds one of each took at warm-up; may be empty.

    Attributes:
        smallest: the smallest batch executed: fewer samples cost no less.
        granule: the batch size with the lowest cost a sample.
        per_call_s: a, as it is now.
        per_unit_s: b, as it is now.
    """

    def __init__(self, batch_seconds: Mapping[int, float]) -> None:
        known = {size: seconds for size, seconds in batch_seconds.items() if seconds > 0 and math.isfinite(seconds)}
        best = min(known, key=lambda size: known[size] / size, default=1)
        self.smallest, self.granule = min(known, default=1), best
        self.per_call_s = 0.0
        self.per_unit_s = known[best] / best if known else _DEFAULT_SAMPLE_S
        if known:
            self.per_call_s = max(0.0, known[self.smallest] - self.smallest * self.per_unit_s)

    def seconds(self, units: float) -> float:
        """Return the expected cost of a call of so many units."""
        return self.per_call_s + self.per_unit_s * units

    def units_within(self, seconds: float) -> float:
        """Return how many units one call may hold to cost at most `seconds`, 0 or more."""
        return max(0.0, (seconds - self.per_call_s) / self.per_unit_s)

    def learn(self, units: float, seconds: float) -> None:
        """Adjust both coefficients by the measured time of a call in its worker."""
        if units <= 0 or not (seconds > 0 and math.isfinite(seconds)):
            return
        ratio = min(max(seconds / self.seconds(units), 1 / _MAX_RATIO), _MAX_RATIO)
        scale = 1 + _COST_WEIGHT * (ratio - 1)
        self.per_call_s *= scale
        self.per_unit_s *= scale


class DispatchTiming:
    """The calls in flight of one target; all times are of `time.monotonic()`."""

    def __init__(self) -> None:
        self._ends: dict[Hashable, float] = {}  # expected, in the order sent
        self._sent_to_idle: set[Hashable] = set()
        self._round_trip_s = _INITIAL_ROUND_TRIP_S
        self._last_arrival_s = 0.0
        self._between_arrivals_s = _MAX_BATCHING_S
        self._open = 0
        self._usually_open = 0.0

    def arrived(self, now_s: float) -> None:
        """Record that a stream arrived."""
        between_s = min(now_s - self._last_arrival_s, _MAX_BATCHING_S)
        self._between_arrivals_s += _TIMING_WEIGHT * (between_s - self._between_arrivals_s)
        self._last_arrival_s = now_s
        self._open += 1
        self._usually_open = max(self._open, _OPEN_DECAY * self._usually_open)

    def left(self) -> None:
        """Record that a stream ended."""
        self._open -= 1

    def batching_until_s(self, first_s: float, waiting: float) -> float:
        """Return until when waiting streams should wait for others to share their call, which may have passed.

        Where streams arrive one right after the other, half of those that are usually open should share a call, while
        another call serves the other half: on a busy machine smaller calls only cost more of its time.

        Args:
            first_s: when the first of them arrived.
            waiting: how many wait.
        """
        if self._between_arrivals_s > _QUIET_S or waiting >= self._usually_open / 2:
            return first_s
        return min(self._last_arrival_s + _QUIET_S, first_s + _MAX_BATCHING_S)

    def sent(self, call: Hashable, cost_s: float, workers: int, now_s: float) -> None:
        """Record that a call is sent."""
        busy = sorted(self._ends.values())
        if len(busy) < workers:
            self._sent_to_idle.add(call)
        starts_s = max(now_s, busy[len(busy) - workers]) if len(busy) >= workers > 0 else now_s
        self._ends[call] = starts_s + cost_s + self._round_trip_s / 2

    def ended(self, call: Hashable, took_s: float, compute_s: float | None) -> None:
        """Record that a call ended.

        Args:
            call: as given to `sent`.
            took_s: from sending to the reply.
            compute_s: the worker's share of that; None when there was no reply.
        """
        self._ends.pop(call, None)
        if call in self._sent_to_idle:
            self._sent_to_idle.remove(call)
            if compute_s is not None:
                measured_s = min(max(_MIN_ROUND_TRIP_S, took_s - compute_s), _MAX_RATIO * self._round_trip_s)
                self._round_trip_s += _TIMING_WEIGHT * (measured_s - self._round_trip_s)

    def send_at_s(self, workers: int) -> float | None:
        """Return when the next call should leave, which may have passed; None when some worker is idle."""
        if len(self._ends) < workers or not workers:
            return None
        return sorted(self._ends.values())[len(self._ends) - workers] - _LEAD_ROUND_TRIPS * self._round_trip_s
