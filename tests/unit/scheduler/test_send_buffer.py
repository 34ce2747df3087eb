"""The limit of results that their readers have not taken yet."""

from __future__ import annotations

import pytest

from service.config import GatewayConfig
from service.scheduler.stream import SendBuffer

LIMITS = {"window_bytes": 100, "max_unread_bytes": 1000, "max_streams": 50}  # 500 shared, a minimum of 10 each


def buffer_of(streams: int, held: int = 0) -> SendBuffer:
    buffer = SendBuffer(GatewayConfig(**LIMITS))
    buffer.streams, buffer.held = streams, held
    return buffer


def test_one_stream_has_its_window() -> None:
    buffer = buffer_of(1)
    assert (buffer.available(0), buffer.available(60), buffer.available(100)) == (100, 40, 0)


def test_many_streams_share_evenly() -> None:
    assert buffer_of(10).available(0) == 50


def test_streams_whose_readers_stopped_starve_no_other() -> None:
    buffer = buffer_of(20, held=500)
    assert (buffer.available(0), buffer.available(10)) == (10, 0)


@pytest.mark.parametrize("streams", [1, 5, 20, 50])
def test_all_streams_together_stay_within_the_limit(streams: int) -> None:
    buffer = buffer_of(streams)
    for _ in range(streams):  # each in turn takes what it may, and none is read
        taken = buffer.available(0)
        assert taken >= 10
        buffer.held += taken
    assert buffer.held <= 1000
