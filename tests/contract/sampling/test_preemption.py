"""Preemption of draws of many steps, so that other streams do not wait for them."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from fount.v1 import sampling_pb2
from service.workers import CALLS_PER_WORKER
from service.workers.memory import MemoryPool
from tests.contract.gateways import INTERACTIVE, data, is_idle, pull, request, serving, serving_slowly
from tests.waiting import until


def steps(count: int) -> sampling_pb2.Parameters:
    return sampling_pb2.Parameters(steps=count)


async def test_a_draw_of_many_steps_is_preempted_between_steps(pool: MemoryPool) -> None:
    async with serving_slowly(pool, max_batch_ms=20, bulk_batch_ms=50) as running:
        _, whole = await running.sample(request(10))
        _, chunks = await running.sample(request(10, parameters=steps(200)))
        assert data(chunks) == data(whole)
        preempted = [call for call in pool.calls if call.parameters.steps]
        assert len(preempted) >= 40  # 10 samples of 200 steps take two seconds
        assert {call.items[0].count for call in preempted} == {1}
        assert all(call.step_limit is None or call.step_limit <= 50 for call in preempted)


async def test_other_streams_are_served_between_the_steps(pool: MemoryPool) -> None:
    async with serving_slowly(pool, max_batch_ms=20, bulk_batch_ms=50) as running:
        long = asyncio.create_task(running.sample(request(3, parameters=steps(1000))))
        await until(lambda: len(pool.calls) > 2)
        started = time.monotonic()
        await running.sample(request(1))
        assert time.monotonic() - started < 0.5
        assert not long.done()
        await running.sample(request(1, priority=INTERACTIVE))
        await long


@pytest.mark.parametrize("priority", [sampling_pb2.PRIORITY_BULK, INTERACTIVE], ids=["bulk", "interactive"])
async def test_a_preempted_draw_ends_while_interactive_work_never_does(pool: MemoryPool, priority: int) -> None:
    async with serving_slowly(pool, max_batch_ms=20, bulk_batch_ms=20) as running:
        interactive = [pull(running, seed=k, priority=INTERACTIVE) for k in range(3)]
        await until(lambda: len(pool.calls) > 3)
        readers = [asyncio.create_task(read(each)) for each in interactive]
        await running.sample(request(4, parameters=steps(50), priority=priority))  # a fifth of a second, alone
        for each, reader in zip(interactive, readers, strict=True):
            each.cancel()
            await asyncio.gather(reader, return_exceptions=True)


async def read(call) -> None:
    async for _ in call:
        pass


async def test_a_preempted_draw_is_not_resumed_after_its_client_left(pool: MemoryPool) -> None:
    async with serving_slowly(pool, max_batch_ms=20, bulk_batch_ms=50) as running:
        call = pull(running, 4, parameters=steps(1000))
        await until(lambda: len(pool.calls) > 3)
        call.cancel()
        scheduler = running.gateway.scheduler
        await until(lambda: is_idle(scheduler))
        before = len(pool.calls)
        await asyncio.sleep(0.2)
        assert len(pool.calls) == before


async def test_a_preempted_draw_without_progress_fails(pool: MemoryPool, monkeypatch) -> None:
    monkeypatch.setattr("service.workers.memory._steps_taken", lambda call, model: 0)
    async with serving_slowly(pool) as running:
        error = await running.refused(request(4, parameters=steps(1000)))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "was not to be preempted" in error.details()


async def test_draws_of_many_steps_share_the_best_batch(pool: MemoryPool) -> None:
    pool.batch_seconds = {1: 0.001, 16: 0.002}
    pool.faults.delay_s = 0.002
    async with serving(pool, max_batch_ms=4, bulk_batch_ms=4) as running:
        _, whole = await running.sample(request(64))
        pool.calls.clear()
        _, chunks = await running.sample(request(64, parameters=steps(20)))
        assert data(chunks) == data(whole)
        assert max(call.items[0].count for call in pool.calls) == 16
        assert len(pool.calls) <= 1.5 * 20 * 64 / 16


async def test_a_stream_begins_no_draws_while_others_of_its_own_are_in_progress(pool: MemoryPool) -> None:
    pool.batch_seconds = {1: 0.001, 16: 0.002}
    pool.faults.delay_s = 0.002
    async with serving(pool, max_batch_ms=4, bulk_batch_ms=4) as running:
        await running.sample(request(200, parameters=steps(20)))
        begun, most = set[int](), 0
        for call in pool.calls:
            item = call.items[0]
            begun.add(item.start_index)
            most = max(most, len(begun))
            if call.step_limit is None:  # the rest of the draw
                begun.discard(item.start_index)
        assert most <= CALLS_PER_WORKER
