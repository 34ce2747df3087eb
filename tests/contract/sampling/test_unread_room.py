"""Readers that are slow or stop: what is made for them is bounded, and others have room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.workers.memory import MemoryPool, memory_model
from tests.contract.sampling.test_load import pull, serving
from tests.contract.sampling.test_sampling import data, request


async def test_no_call_asks_for_nothing(pool: MemoryPool) -> None:
    pool.models = [memory_model("toy", dims=(64, 64, 1))]
    async with serving(pool, max_unread_bytes=1 << 20, max_streams=64) as running:
        pool.faults.sample_s = 1e-5
        stalled = [pull(running, seed=k) for k in range(2)]
        for each in stalled:
            await each.read()
        await asyncio.sleep(0.3)
        await asyncio.gather(*(running.sample(request(300, seed=k)) for k in range(6)))
        assert min(item.count for call in pool.calls for item in call.items) >= 1
        for each in stalled:
            each.cancel()


@pytest.mark.slow
async def test_readers_that_stopped_leave_room_for_those_who_read(pool: MemoryPool) -> None:
    pool.models = [memory_model("toy", dims=(64, 64, 1))]
    async with serving(pool, max_unread_bytes=4 << 20, max_streams=64) as running:
        pool.faults.sample_s = 1e-5
        stalled = [pull(running, seed=k) for k in range(40)]
        for each in stalled:
            await each.read()
        unread = running.gateway.scheduler.buffer
        before = await settled(lambda: unread.held)
        assert before <= 4 << 20
        _, chunks = await running.sample(request(200))
        assert len(data(chunks)) == 200 * 64 * 64
        for each in stalled:
            each.cancel()


async def settled(value: Callable[[], int]) -> int:
    """Wait until a number no longer changes."""
    async with asyncio.timeout(20):
        last = -1
        while last != value():
            last = value()
            await asyncio.sleep(0.5)
    return last
