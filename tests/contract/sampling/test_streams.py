"""Streams: back-pressure, disconnects, fairness, admission, deadlines, draining."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from fount.v1 import sampling_pb2
from service.config import GatewayConfig
from service.errors import InvalidRequest
from service.workers.memory import MemoryPool, memory_model
from tests.contract.conftest import Running, start_gateway
from tests.contract.sampling.test_sampling import TOY, data, request


def issued(running: Running) -> int:
    return sum(item.count for call in running.pool.calls for item in call.items)


async def until(condition, timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def at_rest(scheduler) -> bool:
    """Whether no stream, no call and no sample is left of anything."""
    idle = all(backlog.is_idle for backlog in scheduler._backlogs.values())
    return idle and not scheduler.open_streams and not scheduler.buffer.held


async def test_a_reader_that_stops_stops_its_own_generation(config) -> None:
    pool = MemoryPool(models=[memory_model("toy", dims=(32, 32, 1))])
    running = await start_gateway(pool, config)
    stalled = running.sampling.Sample(request(1_000_000))
    try:
        await stalled.read()
        assert await settled(running) < 50_000  # buffers of both ends, and one window
        _, chunks = await running.sample(request(3))
        assert len(data(chunks)) == 3 * 32 * 32
    finally:  # what would be left of it fails tests that come after
        stalled.cancel()
        await running.channel.close()
        await running.gateway.stop(grace_s=0)


async def settled(running: Running) -> int:
    """How many samples were issued, once no more are for half a second."""
    seen, before = issued(running), -1
    async with asyncio.timeout(20):
        while seen != before:
            await asyncio.sleep(0.5)
            seen, before = issued(running), seen
    return seen


@pytest.mark.parametrize("messages", [0, 1, 2], ids=["before-the-header", "after-the-header", "after-a-chunk"])
async def test_a_client_that_goes_away_leaves_nothing_behind(running: Running, messages: int) -> None:
    running.pool.faults.delay_s = 0.02
    call = running.sampling.Sample(request(1_000_000))
    for _ in range(messages):
        await call.read()
    await asyncio.sleep(0.05)
    call.cancel()
    scheduler = running.gateway.scheduler
    await until(lambda: at_rest(scheduler))
    before = issued(running)
    await asyncio.sleep(0.1)
    assert issued(running) == before


async def test_a_hundred_clients_that_vanish_leave_the_gateway_working(running: Running) -> None:
    running.pool.faults.delay_s = 0.005
    calls = [running.sampling.Sample(request(10_000, seed=k)) for k in range(100)]
    for k, call in enumerate(calls):
        await asyncio.sleep(0.0005 * (k % 7))
        call.cancel()
    scheduler = running.gateway.scheduler
    await until(lambda: not scheduler.open_streams)
    _, chunks = await running.sample(request(3))
    assert len(data(chunks)) == 18


async def test_one_sample_does_not_wait_behind_a_million(running: Running) -> None:
    running.pool.faults.delay_s = 0.02
    pull = running.sampling.Sample(request(1_000_000))
    await pull.read()
    begun = time.monotonic()
    await running.sample(request(1))
    assert time.monotonic() - begun < 0.5
    pull.cancel()


async def test_streams_beyond_what_one_call_holds_take_turns(pool) -> None:
    running = await start_gateway(pool, GatewayConfig(port=0, http_port=0, max_batch_ms=8, bulk_batch_ms=8))
    pool.faults.delay_s = 0.4  # long enough for all to arrive while the first calls run
    pulls = [running.sampling.Sample(request(1000, seed=k)) for k in range(40)]
    await until(lambda: len(pool.calls) >= 8)
    served = {item.seed for call in pool.calls[2:8] for item in call.items}
    assert len(served) >= 36  # six calls of eight: everyone's turn comes before anyone's second
    for pull in pulls:
        pull.cancel()
    await running.channel.close()
    await running.gateway.stop(grace_s=0)


async def test_small_requests_share_calls(running: Running) -> None:
    running.pool.faults.delay_s = 0.4  # long enough for all to arrive while the first calls run
    await asyncio.gather(*(running.sample(request(1, start_index=i)) for i in range(64)))
    assert len(running.pool.calls) <= 6


async def test_a_burst_of_calls_is_answered_in_words(running: Running) -> None:
    # Left to itself, grpc drops calls beyond a thousand pending at random, as CANCELLED.
    running.pool.faults.delay_s = 0.005
    calls = (running.sample(request(1, start_index=i)) for i in range(1500))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert {each.code() for each in refused} <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert sum(isinstance(each, tuple) for each in answers) + len(refused) == 1500
    assert len(refused) < 750


async def test_a_passed_deadline_ends_the_stream_and_frees_its_place(running: Running) -> None:
    running.pool.faults.delay_s = 0.2
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await running.sample(request(1_000_000), timeout=0.3)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: not running.gateway.scheduler.open_streams)


async def test_the_deadline_travels_to_the_worker(running: Running) -> None:
    await running.sample(request(1), timeout=15)
    assert running.pool.calls[0].deadline_unix_s == pytest.approx(time.time() + 15, abs=2)


async def test_too_many_streams_are_refused_with_a_time_to_retry() -> None:
    pool = MemoryPool()
    running = await start_gateway(pool, GatewayConfig(port=0, http_port=0, max_streams=1))
    pool.faults.delay_s = 0.5
    first = asyncio.create_task(running.sample(request(1)))
    await until(lambda: pool.calls)
    error = await running.refused(request(1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert any(key == "grpc-status-details-bin" and b"RetryInfo" in value for key, value in error.trailing_metadata())
    await first
    await running.channel.close()
    await running.gateway.stop(grace_s=0)


async def test_workers_that_never_come_back_fail_the_stream(pool) -> None:
    running = await start_gateway(pool, GatewayConfig(port=0, http_port=0, worker_wait_s=0.2))
    call = running.sampling.Sample(request(10_000_000))
    with pytest.raises(grpc.aio.AioRpcError) as error:  # noqa: PT012  # it is the loop that ends so
        async for _ in call:
            running.pool.set_up(False)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    await running.channel.close()
    await running.gateway.stop(grace_s=0)


async def test_a_worker_that_is_away_for_a_while_is_waited_for(running: Running) -> None:
    _, whole = await running.sample(request(20_000))
    running.pool.faults.delay_s, before = 0.05, len(running.pool.calls)
    call = asyncio.create_task(running.sample(request(20_000)))
    await until(lambda: len(running.pool.calls) > before + 2)
    running.pool.set_up(False)
    await asyncio.sleep(2.0)
    running.pool.set_up(True)
    _, chunks = await call
    assert data(chunks) == data(whole)


async def test_calls_of_gone_clients_still_count_against_their_worker(running: Running) -> None:
    running.pool.faults.delay_s = 0.3
    for k in range(20):
        call = running.sampling.Sample(request(1, seed=k))
        await asyncio.sleep(0.01)
        call.cancel()
    await asyncio.sleep(0.05)
    assert running.pool.running <= 2


async def test_an_unexpected_error_ends_the_streams_of_its_call_alone(running: Running) -> None:
    running.pool.faults.delay_s = 0.05
    running.pool.faults.crash_truncation = 1.0
    stranger = asyncio.create_task(running.sample(request(20_000)))
    await until(lambda: running.pool.calls)
    error = await running.refused(request(1, parameters=sampling_pb2.Parameters(truncation=1.0)))
    _, chunks = await stranger
    assert error.code() is grpc.StatusCode.INTERNAL
    assert sum(chunk.count for chunk in chunks) == 20_000


async def test_a_stop_does_not_wait_for_a_worker_that_hangs(config) -> None:
    pool = MemoryPool()
    running = await start_gateway(pool, config)
    pool.faults.delay_s = 60
    call = running.sampling.Sample(request(1))
    await until(lambda: pool.calls)
    begun = time.monotonic()
    await running.gateway.stop(grace_s=0.1)
    assert time.monotonic() - begun < 6
    call.cancel()
    await running.channel.close()


async def test_the_log_has_an_internal_error_under_its_request_id(running: Running, caplog) -> None:
    running.pool.faults.crash = ZeroDivisionError("a secret")
    call = running.sampling.Sample(request(1), metadata=(("x-request-id", "my-id-123"),))
    with pytest.raises(grpc.aio.AioRpcError, match="my-id-123"):
        await call.read()
    assert "call my-id-123 failed" in caplog.text
    assert "ZeroDivisionError: a secret" in caplog.text


async def test_a_drain_lets_running_streams_end_and_refuses_new_ones() -> None:
    pool = MemoryPool()
    running = await start_gateway(pool, GatewayConfig(port=0, http_port=0))
    pool.faults.delay_s = 0.1
    begun = asyncio.create_task(running.sample(request(5000)))
    await until(lambda: pool.calls)
    stopping = asyncio.create_task(running.gateway.stop(grace_s=5))
    await asyncio.sleep(0.05)
    error = await running.refused(request(1))
    _, chunks = await begun
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert sum(chunk.count for chunk in chunks) == 5000
    await stopping
    await running.channel.close()


async def test_a_caller_without_the_grant_is_refused(pool, config) -> None:
    from service.caller import Caller
    from service.gateway import Gateway

    class Stranger:
        def identify(self, peer, metadata) -> Caller:
            return Caller(subject="stranger", grants=frozenset({"sample:other"}))

    gateway = Gateway(pool, config, Stranger())
    await gateway.start()
    running = Running(gateway, pool, grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}"))
    error = await running.refused(sampling_pb2.SampleRequest(model=TOY, count=1))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await running.channel.close()
    await gateway.stop(grace_s=0)


def test_violations_read_as_a_sentence() -> None:
    from service.errors import Violation

    assert str(InvalidRequest((Violation(field="a", description="b"),))) == "a: b"
