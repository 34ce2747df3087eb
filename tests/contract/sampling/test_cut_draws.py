"""Draws of many steps, cut between them so that others are not kept waiting."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from fount.v1 import sampling_pb2
from service.workers.memory import MemoryPool
from tests.contract.sampling.test_load import INTERACTIVE, pull, serving
from tests.contract.sampling.test_sampling import data, request
from tests.contract.sampling.test_streams import at_rest, until


def steps(count: int) -> sampling_pb2.Parameters:
    return sampling_pb2.Parameters(steps=count)


async def test_a_draw_of_many_steps_is_cut_between_them(pool: MemoryPool) -> None:
    async with serving(pool, max_batch_ms=20, bulk_batch_ms=50) as running:
        _, whole = await running.sample(request(10))
        _, chunks = await running.sample(request(10, parameters=steps(200)))
        assert data(chunks) == data(whole)
        cut = [call for call in pool.calls if call.parameters.steps]
        assert len(cut) >= 40  # 10 samples of 200 steps take two seconds
        assert {call.items[0].count for call in cut} == {1}
        assert all(call.step_limit is None or call.step_limit <= 50 for call in cut)


async def test_others_go_between_the_steps(pool: MemoryPool) -> None:
    async with serving(pool, max_batch_ms=20, bulk_batch_ms=50) as running:
        long = asyncio.create_task(running.sample(request(3, parameters=steps(1000))))
        await until(lambda: len(pool.calls) > 2)
        begun = time.monotonic()
        await running.sample(request(1))
        assert time.monotonic() - begun < 0.5
        assert not long.done()
        await running.sample(request(1, priority=INTERACTIVE))
        await long


@pytest.mark.parametrize("priority", [sampling_pb2.PRIORITY_BULK, INTERACTIVE], ids=["bulk", "interactive"])
async def test_a_cut_draw_ends_even_while_interactive_work_never_does(pool: MemoryPool, priority: int) -> None:
    async with serving(pool, max_batch_ms=20, bulk_batch_ms=20) as running:
        crowd = [pull(running, seed=k, priority=INTERACTIVE) for k in range(3)]
        await until(lambda: len(pool.calls) > 3)
        readers = [asyncio.create_task(read(each)) for each in crowd]
        await running.sample(request(4, parameters=steps(50), priority=priority))  # a fifth of a second, alone
        for each, reader in zip(crowd, readers, strict=True):
            each.cancel()
            await asyncio.gather(reader, return_exceptions=True)


async def read(call) -> None:
    async for _ in call:
        pass


async def test_a_cut_draw_that_nobody_wants_is_not_gone_on_with(pool: MemoryPool) -> None:
    async with serving(pool, max_batch_ms=20, bulk_batch_ms=50) as running:
        call = pull(running, 4, parameters=steps(1000))
        await until(lambda: len(pool.calls) > 3)
        call.cancel()
        scheduler = running.gateway.scheduler
        await until(lambda: at_rest(scheduler))
        before = len(pool.calls)
        await asyncio.sleep(0.2)
        assert len(pool.calls) == before


async def test_a_carry_that_gets_nowhere_ends_the_stream(pool: MemoryPool, monkeypatch) -> None:
    monkeypatch.setattr("service.workers.memory._steps_taken", lambda call: 0)
    async with serving(pool) as running:
        error = await running.refused(request(4, parameters=steps(1000)))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "was not to be preempted" in error.details()
