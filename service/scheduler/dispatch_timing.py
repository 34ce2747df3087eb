"""When workers will be free, as far as anybody can tell: so that a call is sent no sooner than it must.

A worker that runs one call needs its next only when that ends. Until shortly before, whatever arrives can still share
the next call, be overtaken or be cancelled, and nobody loses a moment. What is sent and what came back enters; the time
to send leaves.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["DispatchTiming"]

_FIRST_HOP_S = 0.004
_LONE_S = 1.0  # between arrivals that have nothing to do with each other
_NEW_SHARE = 0.1  # of the latest hop in what is known of them
_MARGIN = 0.75  # of a hop, there and back, that a call is sent before its worker is through
_COMPANY_HOPS = 1.0  # that a stream may wait for others when they come thick and fast,
_LONGEST_COMPANY_S = 0.01  # and never longer
_TRUST = 3.0  # a hop is believed up to so many times what hops took before: a stopped process is no news
_LEAST_HOP_S = 1e-4


class DispatchTiming:
    """The calls in flight of one target."""

    def __init__(self) -> None:
        self._ends: dict[Hashable, float] = {}  # in the order sent
        self._found_idle: set[Hashable] = set()
        self._hop_s = _FIRST_HOP_S
        self._arrived_s: float | None = None
        self._between_s = _LONE_S

    def sent(self, call: Hashable, cost_s: float, workers: int, now_s: float) -> None:
        """Note that a call is sent."""
        busy = sorted(self._ends.values())
        if len(busy) < workers:
            self._found_idle.add(call)
        starts_s = max(now_s, busy[len(busy) - workers]) if len(busy) >= workers > 0 else now_s
        self._ends[call] = starts_s + cost_s + self._hop_s / 2

    def ended(self, call: Hashable, took_s: float, compute_s: float | None) -> None:
        """Note that it came back.

        Args:
            call: which.
            took_s: from sending to its answer.
            compute_s: of which the model took so much; None when there was no answer.
        """
        self._ends.pop(call, None)
        if call in self._found_idle:
            self._found_idle.remove(call)
            if compute_s is not None:
                seen_s = min(max(_LEAST_HOP_S, took_s - compute_s), _TRUST * self._hop_s)
                self._hop_s += _NEW_SHARE * (seen_s - self._hop_s)

    def arrived(self, now_s: float) -> None:
        """Note that a stream came."""
        if self._arrived_s is not None:
            self._between_s += _NEW_SHARE * (min(now_s - self._arrived_s, _LONE_S) - self._between_s)
        self._arrived_s = now_s

    def company_until_s(self, came_s: float) -> float:
        """Until when one that came may wait for company that shares the way; in the past when none is expected."""
        wait_s = min(_COMPANY_HOPS * self._hop_s, _LONGEST_COMPANY_S)
        return came_s + wait_s if wait_s >= self._between_s else 0.0

    def send_at_s(self, workers: int) -> float:
        """When the next call should leave; in the past when some worker has none."""
        if len(self._ends) < workers or not workers:
            return 0.0
        return sorted(self._ends.values())[len(self._ends) - workers] - _MARGIN * self._hop_s
