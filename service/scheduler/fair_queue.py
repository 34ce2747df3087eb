"""Whose turn it is: deficit round robin by cost, interactive streams before bulk, and bulk never forgotten.

A call has one leader, whose turn it is, and room for a time that is the same whoever leads; so a stream whose samples
take twenty steps gets a twentieth as many. Streams of the leader's lane (equal operation, parameters and shape) and
priority share the room evenly; what one cannot use goes to the others. What rounding gives or takes is carried to the
next call.

Source: Shreedhar and Varghese, "Efficient fair queuing using deficit round robin", 1996.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from service.scheduler.stream import SampleStream

__all__ = ["INTERACTIVE_CALLS", "FairQueue"]

INTERACTIVE_CALLS = 4
"""How many interactive calls may go before one of bulk when both wait."""


class FairQueue:
    """The streams of one target, in turn."""

    def __init__(self) -> None:
        self._rings: dict[bool, dict[SampleStream, float]] = {True: {}, False: {}}  # urgent: stream: deficit in samples
        self._issued: set[SampleStream] = set()  # all of them: they only wait for answers
        self._passed_over = 0  # interactive calls since bulk had its last turn

    def __iter__(self) -> Iterator[SampleStream]:
        """Every stream."""
        for ring in self._rings.values():
            yield from ring
        yield from self._issued

    def __bool__(self) -> bool:
        """Whether there are any."""
        return any(self._rings.values()) or bool(self._issued)

    @property
    def interactive_waits(self) -> bool:
        """Whether samples somebody sits waiting for could be issued now."""
        return any(stream.demand for stream in self._rings[True])

    def add(self, stream: SampleStream) -> None:
        """Let a stream take part, last in turn."""
        self._rings[stream.work.urgent][stream] = 0.0

    def remove(self, stream: SampleStream) -> None:
        """Forget a stream."""
        self._rings[stream.work.urgent].pop(stream, None)
        self._issued.discard(stream)

    def pass_by(self, stream: SampleStream) -> None:
        """Ask a stream no more: it has issued all it wants."""
        self._rings[stream.work.urgent].pop(stream, None)
        self._issued.add(stream)

    def next_call(self, room_of: Callable[[SampleStream], int]) -> list[tuple[SampleStream, int]]:
        """Choose what goes into the next call.

        Args:
            room_of: how many samples a call led by a stream may hold, 1 or more.

        Returns:
            Streams of one lane and one priority, and how many samples each issues; empty when nobody wants any.
        """
        interactive, bulk = self._firsts()
        leader = self._leader(interactive, bulk)
        if leader is None:
            return []
        self._passed_over = self._passed_over + 1 if leader is interactive and bulk else 0
        ring = self._rings[leader.work.urgent]
        ring[leader] = ring.pop(leader)  # to the end
        return _share(ring, _lane(ring, leader), room_of(leader))

    def would_fill(self, room_of: Callable[[SampleStream], int]) -> bool:
        """Whether the next call would be full."""
        leader = self._leader(*self._firsts())
        if leader is None:
            return False
        lane = _lane(self._rings[leader.work.urgent], leader)
        return sum(stream.demand for stream in lane) >= room_of(leader)

    def first_new(self) -> SampleStream | None:
        """The stream whose turn it is, if it is of bulk and has not had one yet."""
        leader = self._leader(*self._firsts())
        return None if leader is None or leader.work.urgent or leader.slices_issued else leader

    def _firsts(self) -> tuple[SampleStream | None, SampleStream | None]:
        """Those whose turn it is among interactive and bulk streams."""
        interactive, bulk = (next((stream for stream in ring if stream.demand), None) for ring in self._rings.values())
        return interactive, bulk

    def _leader(self, interactive: SampleStream | None, bulk: SampleStream | None) -> SampleStream | None:
        owed = bulk is not None and self._passed_over >= INTERACTIVE_CALLS
        return bulk if interactive is None or owed else interactive


def _lane(ring: dict[SampleStream, float], leader: SampleStream) -> list[SampleStream]:
    return [stream for stream in ring if stream.work.lane == leader.work.lane and stream.demand]


def _share(ring: dict[SampleStream, float], lane: list[SampleStream], room: int) -> list[tuple[SampleStream, int]]:
    """Give every stream of a lane its share of a call; those that had too little before come first."""
    for stream in lane:
        ring[stream] += room / len(lane)
    lane.sort(key=lambda stream: -ring[stream])
    counts = dict.fromkeys(lane, 0)
    left = _give(lane, counts, ring, room, dict(ring))  # first what each has a claim to,
    left = _give(lane, counts, ring, left, dict.fromkeys(lane, max(1, left // len(lane))))  # then the rest, evenly;
    _give(lane, counts, ring, left, dict.fromkeys(lane, left))  # then all of it to whoever wants it
    for stream in lane:
        if counts[stream] == stream.demand:
            ring[stream] = 0.0  # it wants nothing more: no claim is saved up, no debt stays
        ring[stream] = min(max(ring[stream], -float(room)), float(room))
    return [(stream, count) for stream, count in counts.items() if count]


def _give(
    lane: list[SampleStream],
    counts: dict[SampleStream, int],
    ring: dict[SampleStream, float],
    room: int,
    most: Mapping[SampleStream, float],
) -> int:
    """Give each stream in turn up to so many samples, and charge it; returns the room that is left."""
    for stream in lane:
        taken = max(0, min(room, stream.demand - counts[stream], int(most[stream])))
        counts[stream] += taken
        ring[stream] -= taken
        room -= taken
    return room
