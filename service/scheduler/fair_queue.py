"""The fair queue of one target: deficit round robin by cost, interactive streams before bulk, bulk never starved.

A call has one leader, the next stream in the ring, and a capacity in time that is the same for every leader; so a
stream whose samples take twenty steps gets a twentieth as many. Streams of the leader's lane (equal operation,
parameters and shape) and priority share the capacity evenly; what one cannot use goes to the others. The difference
between a stream's fair share and what it received is its deficit, which carries over to the next call.

Source: Shreedhar and Varghese, "Efficient fair queuing using deficit round robin", 1996.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from service.domain import Priority
from service.scheduler.stream import SampleStream

__all__ = ["INTERACTIVE_CALLS", "FairQueue"]

INTERACTIVE_CALLS = 4
"""How many interactive calls may precede one bulk call when both wait."""

_Deficits = dict[SampleStream, float]
"""A ring of streams, the next one first, with their deficits in samples."""


class FairQueue:
    """The streams of one target, in order of service."""

    def __init__(self) -> None:
        self._rings: dict[Priority, _Deficits] = {Priority.INTERACTIVE: {}, Priority.BULK: {}}
        self._issued: set[SampleStream] = set()  # streams that only wait for replies
        self._calls_before_bulk = 0  # interactive calls since the last bulk call

    def __iter__(self) -> Iterator[SampleStream]:
        """Iterate over all streams."""
        for ring in self._rings.values():
            yield from ring
        yield from self._issued

    def __bool__(self) -> bool:
        """Whether there are any streams."""
        return self.has_unissued or bool(self._issued)

    @property
    def has_unissued(self) -> bool:
        """Whether some stream has samples to issue, now or later."""
        return bool(self._rings[Priority.BULK] or self._rings[Priority.INTERACTIVE])

    @property
    def has_interactive_demand(self) -> bool:
        """Whether an interactive stream could issue samples now."""
        return self._next(Priority.INTERACTIVE) is not None

    @property
    def has_idle(self) -> bool:
        """Whether a stream could issue samples now and has none in progress."""
        return any(not each.in_progress and each.demand for ring in self._rings.values() for each in ring)

    def add(self, stream: SampleStream) -> None:
        """Add a stream at the end of its ring."""
        self._ring(stream)[stream] = 0.0

    def remove(self, stream: SampleStream) -> None:
        """Remove a stream."""
        self._ring(stream).pop(stream, None)
        self._issued.discard(stream)

    def mark_issued(self, stream: SampleStream) -> None:
        """Take a stream that has issued all its samples out of its ring."""
        self._ring(stream).pop(stream, None)
        self._issued.add(stream)

    def next_call(self, capacity_of: Callable[[SampleStream], int]) -> list[tuple[SampleStream, int]]:
        """Choose the content of the next call.

        Args:
            capacity_of: how many samples a call led by a stream may hold, 1 or more.

        Returns:
            Streams of one lane and one priority, and how many samples each issues; empty when none has demand.
        """
        leader = self.leader()
        if leader is None:
            return []
        is_interactive = leader.work.context.priority is Priority.INTERACTIVE
        passes_over_bulk = is_interactive and self._next(Priority.BULK) is not None
        self._calls_before_bulk = self._calls_before_bulk + 1 if passes_over_bulk else 0
        ring = self._ring(leader)
        ring[leader] = ring.pop(leader)  # to the end
        return _share(ring, _demands(ring, leader), capacity_of(leader))

    def leader(self) -> SampleStream | None:
        """Return the stream that leads the next call; None when none has demand."""
        interactive, bulk = self._next(Priority.INTERACTIVE), self._next(Priority.BULK)
        bulk_is_due = bulk is not None and self._calls_before_bulk >= INTERACTIVE_CALLS
        return bulk if interactive is None or bulk_is_due else interactive

    def fills(self, leader: SampleStream, capacity: int) -> bool:
        """Whether the streams that share a leader's call have samples enough to fill it."""
        return sum(_demands(self._ring(leader), leader).values()) >= capacity

    def _ring(self, stream: SampleStream) -> _Deficits:
        return self._rings[stream.work.context.priority]

    def _next(self, priority: Priority) -> SampleStream | None:
        for stream in self._rings[priority]:
            if stream.demand:
                return stream
        return None


def _demands(ring: _Deficits, leader: SampleStream) -> dict[SampleStream, int]:
    """Return the streams of a leader's lane that have demand, and how many samples each could issue."""
    lane = leader.work.lane
    return {stream: demand for stream in ring if stream.work.lane == lane and (demand := stream.demand)}


def _share(ring: _Deficits, demands: dict[SampleStream, int], capacity: int) -> list[tuple[SampleStream, int]]:
    """Divide a call among the streams of a lane; those with the largest deficit come first."""
    lane = list(demands)
    if len(lane) == 1 and demands[lane[0]] <= capacity:
        ring[lane[0]] = 0.0
        return [*demands.items()]
    for stream in lane:
        ring[stream] += capacity / len(lane)
    lane.sort(key=lambda stream: -ring[stream])
    unmet = {stream: demands[stream] for stream in lane}
    left = _allot(unmet, ring, capacity, ring.copy())  # first each stream's own deficit,
    if left:
        left = _allot(unmet, ring, left, dict.fromkeys(lane, max(1, left // len(lane))))  # then the rest, evenly,
    if left:
        _allot(unmet, ring, left, dict.fromkeys(lane, left))  # then all of it to streams that still have demand
    for stream in lane:
        # Without demand, neither deficit nor debt carries over.
        ring[stream] = min(max(ring[stream], -float(capacity)), float(capacity)) if unmet[stream] else 0.0
    return [(stream, count) for stream in lane if (count := demands[stream] - unmet[stream])]


def _allot(unmet: dict[SampleStream, int], ring: _Deficits, capacity: int, limits: Mapping[SampleStream, float]) -> int:
    """Give each stream up to its limit, reducing its demand and its deficit; return the remaining capacity."""
    for stream, demand in unmet.items():
        taken = max(0, min(capacity, demand, int(limits[stream])))
        unmet[stream] = demand - taken
        ring[stream] -= taken
        capacity -= taken
    return capacity
