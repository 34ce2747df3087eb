"""Streams: back-pressure, disconnects, fairness, admission, deadlines, draining."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from google.rpc import error_details_pb2

from fount.v1 import sampling_pb2
from service.caller import Caller
from service.errors import InvalidRequest, Violation
from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import Running, data, details, is_idle, pull, request, serving
from tests.waiting import until, until_constant


def issued(running: Running) -> int:
    return sum(item.count for call in running.pool.calls for item in call.items)


async def test_a_stopped_reader_pauses_its_own_generation(config) -> None:
    pool = MemoryPool(models=[memory_model("toy", dims=(32, 32, 1))])
    async with serving(pool) as running:
        stalled = pull(running)
        await stalled.read()
        assert await until_constant(lambda: issued(running)) < 50_000  # buffers of both ends, and one window
        _, chunks = await running.sample(request(3))
        assert len(data(chunks)) == 3 * 32 * 32
        stalled.cancel()


@pytest.mark.parametrize("messages", [0, 1, 2], ids=["before-the-header", "after-the-header", "after-a-chunk"])
async def test_a_stream_whose_client_left_is_removed(running: Running, messages: int) -> None:
    running.pool.faults.delay_s = 0.02
    call = pull(running)
    for _ in range(messages):
        await call.read()
    await asyncio.sleep(0.05)
    call.cancel()
    scheduler = running.gateway.scheduler
    await until(lambda: is_idle(scheduler))
    before = issued(running)
    await asyncio.sleep(0.1)
    assert issued(running) == before


async def test_the_gateway_works_after_a_hundred_clients_left(running: Running) -> None:
    running.pool.faults.delay_s = 0.005
    calls = [running.sampling.Sample(request(10_000, seed=k)) for k in range(100)]
    for k, call in enumerate(calls):
        await asyncio.sleep(0.0005 * (k % 7))
        call.cancel()
    scheduler = running.gateway.scheduler
    await until(lambda: not scheduler.open_streams)
    _, chunks = await running.sample(request(3))
    assert len(data(chunks)) == 18


async def test_one_sample_does_not_wait_for_a_million(running: Running) -> None:
    running.pool.faults.delay_s = 0.02
    stream = pull(running)
    await stream.read()
    started = time.monotonic()
    await running.sample(request(1))
    assert time.monotonic() - started < 0.5
    stream.cancel()


async def test_more_streams_than_a_call_holds_are_served_in_turn(pool) -> None:
    async with serving(pool, max_batch_ms=8, bulk_batch_ms=8) as running:
        pool.faults.delay_s = 0.4  # long enough for all to arrive while the first calls run
        pulls = [running.sampling.Sample(request(1000, seed=k)) for k in range(40)]
        await until(lambda: len(pool.calls) >= 8)
        served = {item.seed for call in pool.calls[2:8] for item in call.items}
        assert len(served) >= 36  # six calls of eight: each stream is served once before any is served twice
        for pull in pulls:
            pull.cancel()


async def test_small_requests_share_calls(running: Running) -> None:
    running.pool.faults.delay_s = 0.4  # long enough for all to arrive while the first calls run
    await asyncio.gather(*(running.sample(request(1, start_index=i)) for i in range(64)))
    assert len(running.pool.calls) <= 6


async def test_a_burst_of_calls_is_refused_with_a_reason(running: Running) -> None:
    # By default, grpc drops calls at random, as CANCELLED, when more than a thousand are pending.
    running.pool.faults.delay_s = 0.005
    calls = (running.sample(request(1, start_index=i)) for i in range(1500))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert {each.code() for each in refused} <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert sum(isinstance(each, tuple) for each in answers) + len(refused) == 1500
    assert len(refused) < 750


async def test_a_passed_deadline_ends_the_stream(running: Running) -> None:
    running.pool.faults.delay_s = 0.2
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await running.sample(request(1_000_000), timeout=0.3)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: not running.gateway.scheduler.open_streams)


async def test_the_deadline_is_sent_to_the_worker(running: Running) -> None:
    await running.sample(request(1), timeout=15)
    assert running.pool.calls[0].deadline_unix_s == pytest.approx(time.time() + 15, abs=2)


async def test_too_many_streams_are_refused_with_a_time_to_retry() -> None:
    pool = MemoryPool()
    async with serving(pool, max_streams=1) as running:
        pool.faults.delay_s = 0.5
        first = asyncio.create_task(running.sample(request(1)))
        await until(lambda: pool.calls)
        error = await running.refused(request(1))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details(error, error_details_pb2.RetryInfo) is not None
        await first


async def test_a_stream_fails_when_its_workers_do_not_return(pool) -> None:
    async with serving(pool, worker_wait_s=0.2) as running:
        call = running.sampling.Sample(request(10_000_000))
        with pytest.raises(grpc.aio.AioRpcError) as error:  # noqa: PT012  # the loop raises it
            async for _ in call:
                running.pool.set_up(up=False)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_waits_for_a_worker_that_is_away_for_a_while(running: Running) -> None:
    _, whole = await running.sample(request(20_000))
    running.pool.faults.delay_s, before = 0.05, len(running.pool.calls)
    call = asyncio.create_task(running.sample(request(20_000)))
    await until(lambda: len(running.pool.calls) > before + 2)
    running.pool.set_up(up=False)
    await asyncio.sleep(2.0)
    running.pool.set_up(up=True)
    _, chunks = await call
    assert data(chunks) == data(whole)


async def test_calls_of_clients_that_left_still_count_as_load(running: Running) -> None:
    running.pool.faults.delay_s = 0.3
    for k in range(20):
        call = running.sampling.Sample(request(1, seed=k))
        await asyncio.sleep(0.01)
        call.cancel()
    await asyncio.sleep(0.05)
    assert running.pool.running <= 2


async def test_a_call_that_nobody_waits_for_any_more_is_cancelled(running: Running) -> None:
    running.pool.faults.delay_s = 60
    call = running.sampling.Sample(request(1))
    await until(lambda: running.pool.running == 1)
    call.cancel()
    await until(lambda: running.pool.running == 0)


async def test_a_call_is_not_cancelled_while_one_of_its_readers_waits(running: Running) -> None:
    running.pool.faults.delay_s = 0.3
    first = [running.sampling.Sample(request(1, seed=k)) for k in range(2)]  # as many as the worker holds
    await until(lambda: len(running.pool.calls) == 2)
    left, waiting = running.sampling.Sample(request(1)), asyncio.create_task(running.sample(request(2)))
    await until(lambda: any(len(call.items) == 2 for call in running.pool.calls))
    left.cancel()
    _, chunks = await waiting
    assert len(data(chunks)) == 12
    for call in first:
        call.cancel()


async def test_an_unexpected_error_ends_the_streams_of_its_call_alone(running: Running) -> None:
    running.pool.faults.delay_s = 0.05
    running.pool.faults.crash_truncation = 1.0
    unrelated = asyncio.create_task(running.sample(request(20_000)))
    await until(lambda: running.pool.calls)
    error = await running.refused(request(1, parameters=sampling_pb2.Parameters(truncation=1.0)))
    _, chunks = await unrelated
    assert error.code() is grpc.StatusCode.INTERNAL
    assert sum(chunk.count for chunk in chunks) == 20_000


async def test_a_stop_does_not_wait_for_a_worker_that_hangs(config) -> None:
    pool = MemoryPool()
    async with serving(pool) as running:
        pool.faults.delay_s = 60
        call = running.sampling.Sample(request(1))
        await until(lambda: pool.calls)
        started = time.monotonic()
        await running.gateway.stop(grace_s=0.1)
        assert time.monotonic() - started < 6
        call.cancel()


async def test_the_log_contains_an_internal_error_with_its_request_id(running: Running, caplog) -> None:
    running.pool.faults.crash = ZeroDivisionError("a secret")
    call = running.sampling.Sample(request(1), metadata=(("x-request-id", "my-id-123"),))
    with pytest.raises(grpc.aio.AioRpcError, match="my-id-123"):
        await call.read()
    assert "call my-id-123 failed" in caplog.text
    assert "ZeroDivisionError: a secret" in caplog.text


async def test_draining_finishes_running_streams_and_refuses_new_ones() -> None:
    pool = MemoryPool()
    async with serving(pool) as running:
        pool.faults.delay_s = 0.1
        started = asyncio.create_task(running.sample(request(5000)))
        await until(lambda: pool.calls)
        stopping = asyncio.create_task(running.gateway.stop(grace_s=5))
        await asyncio.sleep(0.05)
        error = await running.refused(request(1))
        _, chunks = await started
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert sum(chunk.count for chunk in chunks) == 5000
        await stopping


async def test_a_caller_without_the_grant_is_refused(pool) -> None:
    class Policy:
        def identify(self, peer, metadata) -> Caller:
            return Caller(subject="other", grants=frozenset({"sample:other"}))

    async with serving(pool, Policy()) as running:
        error = await running.refused(request(1))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED


def test_violations_are_formatted_as_field_and_description() -> None:
    assert str(InvalidRequest((Violation(field="a", description="b"),))) == "a: b"
