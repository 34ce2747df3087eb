"""How calls are divided among streams."""

from __future__ import annotations

from collections import Counter

import pytest

from service.caller import Caller
from service.catalog.conditions import NoLabels
from service.config import GatewayConfig
from service.domain import Dtype, ModelKey, Parameters, Priority, Target
from service.scheduler.fair_queue import FairQueue
from service.scheduler.stream import SampleStream, SendBuffer
from service.scheduler.work import RangeFeed, RequestContext, Work

TARGET = Target(model=ModelKey(name="toy", version="1", digest="sha256:0"), numerics="avx2")
CALLER = Caller(subject="a", grants=frozenset({"*"}))
ONE_STEP, SLOW = Parameters(), Parameters(steps=20)


class Streams:
    """Streams in a queue, and how many samples each received so far; their readers are always fast enough."""

    def __init__(self) -> None:
        self.queue = FairQueue()
        self.buffer = SendBuffer(GatewayConfig(max_unread_bytes=1 << 40, window_bytes=1 << 30))
        self.received: Counter[str] = Counter()
        self.names: dict[SampleStream, str] = {}

    def add(
        self, name: str, count: int = 10**9, priority: Priority = Priority.BULK, parameters: Parameters = ONE_STEP
    ) -> None:
        work = Work(
            target=TARGET, parameters=parameters, feed=RangeFeed(seed=1, labels=NoLabels(), dtype=Dtype.UINT8),
            sample_bytes=1, count=count, context=RequestContext(caller=CALLER, priority=priority),
        )  # fmt: skip
        stream = SampleStream(work, self.buffer, lambda: None, self.queue.remove)
        self.names[stream] = name
        self.queue.add(stream)

    def call(self, capacity: int = 80) -> Counter[str]:
        """Fill one call of so many steps."""
        chosen = self.queue.next_call(lambda leader: max(1, capacity // leader.steps))
        counts = Counter({self.names[stream]: count for stream, count in chosen})
        for stream, count in chosen:
            stream._next_index += count
        self.received += counts
        return counts


@pytest.fixture
def streams() -> Streams:
    return Streams()


def test_a_queue_without_streams_has_no_call(streams: Streams) -> None:
    assert streams.call() == {}


def test_one_stream_fills_a_call(streams: Streams) -> None:
    streams.add("pull")
    assert streams.call(80) == {"pull": 80}


def test_a_large_and_a_small_stream_share_a_call(streams: Streams) -> None:
    streams.add("large")
    streams.add("small", 3)
    assert streams.call(80) == {"large": 77, "small": 3}


def test_equal_streams_receive_equal_shares(streams: Streams) -> None:
    for name in "abc":
        streams.add(name)
    for _ in range(30):
        streams.call(80)
    assert max(streams.received.values()) - min(streams.received.values()) <= 1
    assert streams.received.total() == 2400


def test_more_streams_than_a_call_holds_are_all_served(streams: Streams) -> None:
    for k in range(40):
        streams.add(f"{k:02}")
    for _ in range(10):
        streams.call(8)
    assert set(streams.received.values()) == {2}


def test_time_is_shared_rather_than_samples(streams: Streams) -> None:
    streams.add("one step")
    streams.add("twenty steps", parameters=SLOW)
    for _ in range(20):
        streams.call(80)
    assert streams.received == {"one step": 800, "twenty steps": 40}


def test_a_lane_of_many_does_not_crowd_out_a_lane_of_one(streams: Streams) -> None:
    streams.add("alone", parameters=Parameters(truncation=1.0))
    for k in range(9):
        streams.add(f"many {k}")
    for _ in range(100):
        streams.call(90)
    assert streams.received["alone"] == pytest.approx(900, rel=0.05)


def test_lanes_never_share_a_call(streams: Streams) -> None:
    streams.add("a", parameters=Parameters(truncation=1.0))
    streams.add("b")
    assert [len(streams.call()) for _ in range(6)] == [1] * 6


def test_interactive_work_goes_first_and_alone(streams: Streams) -> None:
    streams.add("pull")
    streams.call()
    streams.add("interactive", 8, Priority.INTERACTIVE)
    assert streams.call(80) == {"interactive": 8}
    assert streams.call(80) == {"pull": 80}


def test_bulk_work_is_served_while_interactive_work_never_ends(streams: Streams) -> None:
    streams.add("pull")
    streams.add("interactive", priority=Priority.INTERACTIVE)
    for _ in range(50):
        streams.call(80)
    assert streams.received == {"interactive": 3200, "pull": 800}


def test_a_stream_without_demand_saves_up_no_deficit(streams: Streams) -> None:
    streams.add("late")
    (late,) = streams.names
    late._held = 1 << 20  # its reader is slow: it has no demand
    streams.add("steady")
    for _ in range(50):
        streams.call(80)
    late._held = 0
    assert streams.call(80) == {"late": 40, "steady": 40}


def test_a_removed_stream_is_never_served(streams: Streams) -> None:
    streams.add("removed")
    streams.queue.remove(next(iter(streams.names)))
    assert not streams.queue
    assert streams.call() == {}


def test_a_stream_with_a_slice_in_progress_is_not_idle(streams: Streams) -> None:
    streams.add("a", count=2)
    (stream,) = streams.queue
    first, second = stream.take(1), stream.take(1)
    first.fail(RuntimeError())
    first.fail(RuntimeError())  # only the first result counts
    assert (stream.in_progress, streams.queue.has_idle) == (1, False)
    second.fail(RuntimeError())
    assert stream.in_progress == 0
