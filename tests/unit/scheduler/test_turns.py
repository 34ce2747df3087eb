"""Whose turn it is."""

from __future__ import annotations

from collections import Counter

import pytest

from service.caller import Caller
from service.catalog.conditions import NoLabels
from service.config import GatewayConfig
from service.domain import Dtype, ModelKey, Parameters, Target
from service.scheduler import Work
from service.scheduler.admission import SendBuffer
from service.scheduler.fair_queue import FairQueue
from service.scheduler.feeds import RangeFeed
from service.scheduler.stream import SampleStream

TARGET = Target(model=ModelKey(name="toy", version="1", digest="sha256:0"), numerics="avx2")
BULK, SLOW = Parameters(), Parameters(steps=20)


class Streams:
    """Streams in turn, and what each was given so far; whatever is given is read at once."""

    def __init__(self) -> None:
        self.turns = FairQueue()
        self.unread = SendBuffer(GatewayConfig(max_unread_bytes=1 << 40, window_bytes=1 << 30))
        self.given: Counter[str] = Counter()
        self.names: dict[SampleStream, str] = {}

    def add(self, name: str, count: int = 10**9, *, urgent: bool = False, parameters: Parameters = BULK) -> None:
        work = Work(
            target=TARGET, parameters=parameters, feed=RangeFeed(seed=1, labels=NoLabels(), dtype=Dtype.UINT8),
            sample_bytes=1, count=count, caller=Caller(subject="a", grants=frozenset({"*"})), urgent=urgent,
        )  # fmt: skip
        stream = SampleStream(work, self.unread, lambda: None)
        self.names[stream] = name
        self.turns.add(stream)

    def call(self, room: int = 80) -> Counter[str]:
        """Give out one call of so much room, less where a sample takes more steps."""
        chosen = self.turns.next_call(lambda leader: max(1, room // (leader.work.parameters.steps or 1)))
        told = Counter({self.names[stream]: count for stream, count in chosen})
        for stream, count in chosen:
            stream._next_index += count
        self.given += told
        return told


@pytest.fixture
def streams() -> Streams:
    return Streams()


def test_nobody_wants_anything(streams: Streams) -> None:
    assert streams.call() == {}


def test_one_stream_has_all_of_a_call(streams: Streams) -> None:
    streams.add("pull")
    assert streams.call(80) == {"pull": 80}


def test_a_million_and_a_handful_share_a_call(streams: Streams) -> None:
    streams.add("pull")
    streams.add("handful", 3)
    assert streams.call(80) == {"pull": 77, "handful": 3}


def test_equal_streams_are_given_equal_shares(streams: Streams) -> None:
    for name in "abc":
        streams.add(name)
    for _ in range(30):
        streams.call(80)
    assert max(streams.given.values()) - min(streams.given.values()) <= 1
    assert streams.given.total() == 2400


def test_more_streams_than_places_all_have_their_turn(streams: Streams) -> None:
    for k in range(40):
        streams.add(f"{k:02}")
    for _ in range(10):
        streams.call(8)
    assert set(streams.given.values()) == {2}


def test_time_is_shared_not_samples(streams: Streams) -> None:
    streams.add("one step")
    streams.add("twenty steps", parameters=SLOW)
    for _ in range(20):
        streams.call(80)
    assert streams.given == {"one step": 800, "twenty steps": 40}


def test_a_lane_of_many_does_not_crowd_out_a_lane_of_one(streams: Streams) -> None:
    streams.add("alone", parameters=Parameters(truncation=1.0))
    for k in range(9):
        streams.add(f"many {k}")
    for _ in range(100):
        streams.call(90)
    assert streams.given["alone"] == pytest.approx(900, rel=0.05)


def test_lanes_never_share_a_call(streams: Streams) -> None:
    streams.add("a", parameters=Parameters(truncation=1.0))
    streams.add("b")
    assert [len(streams.call()) for _ in range(6)] == [1] * 6


def test_interactive_goes_first_and_alone(streams: Streams) -> None:
    streams.add("pull")
    streams.call()
    streams.add("person", 8, urgent=True)
    assert streams.call(80) == {"person": 8}
    assert streams.call(80) == {"pull": 80}


def test_bulk_is_not_forgotten_while_interactive_never_ends(streams: Streams) -> None:
    streams.add("pull")
    streams.add("crowd", urgent=True)
    for _ in range(50):
        streams.call(80)
    assert streams.given == {"crowd": 3200, "pull": 800}


def test_idle_time_is_not_saved_up(streams: Streams) -> None:
    streams.add("late")
    (late,) = streams.names
    late._held = 1 << 20  # its reader is slow: it wants nothing
    streams.add("steady")
    for _ in range(50):
        streams.call(80)
    late._held = 0
    assert streams.call(80) == {"late": 40, "steady": 40}


def test_a_stream_that_left_is_forgotten(streams: Streams) -> None:
    streams.add("gone")
    streams.turns.remove(next(iter(streams.names)))
    assert not streams.turns
    assert streams.call() == {}
