"""Room for samples nobody has taken yet."""

from __future__ import annotations

import pytest

from service.config import GatewayConfig
from service.scheduler.admission import SendBuffer

LIMITS = {"window_bytes": 100, "max_unread_bytes": 1000, "max_streams": 50}  # 500 shared, a floor of 10 each


def room_of(streams: int, held: int = 0) -> SendBuffer:
    room = SendBuffer(GatewayConfig(**LIMITS))
    room.streams, room.held = streams, held
    return room


def test_one_stream_has_its_window() -> None:
    room = room_of(1)
    assert (room.left_for(0), room.left_for(60), room.left_for(100)) == (100, 40, 0)


def test_many_streams_share() -> None:
    assert room_of(10).left_for(0) == 50


def test_those_who_stopped_starve_nobody() -> None:
    room = room_of(20, held=500)
    assert (room.left_for(0), room.left_for(10)) == (10, 0)


@pytest.mark.parametrize("streams", [1, 5, 20, 50])
def test_all_together_stay_within_the_limit(streams: int) -> None:
    room = room_of(streams)
    for _ in range(streams):  # one after the other takes what it may, and nobody reads
        taken = room.left_for(0)
        assert taken >= 10
        room.held += taken
    assert room.held <= 1000
