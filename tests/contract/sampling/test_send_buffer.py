"""The send buffer: results of slow or stopped readers are bounded, and other streams proceed."""

from __future__ import annotations

import asyncio

import pytest

from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import data, pull, request, serving_slowly
from tests.waiting import until_constant


async def test_no_call_has_an_empty_item(pool: MemoryPool) -> None:
    pool.models = [memory_model("toy", dims=(64, 64, 1))]
    async with serving_slowly(pool, max_unread_bytes=1 << 20, max_streams=64) as running:
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
async def test_stopped_readers_leave_capacity_to_others(pool: MemoryPool) -> None:
    pool.models = [memory_model("toy", dims=(64, 64, 1))]
    async with serving_slowly(pool, max_unread_bytes=4 << 20, max_streams=64) as running:
        pool.faults.sample_s = 1e-5
        stalled = [pull(running, seed=k) for k in range(40)]
        for each in stalled:
            await each.read()
        buffer = running.gateway.scheduler.buffer
        before = await until_constant(lambda: buffer.held)
        assert before <= 4 << 20
        _, chunks = await running.sample(request(200))
        assert len(data(chunks)) == 200 * 64 * 64
        for each in stalled:
            each.cancel()
