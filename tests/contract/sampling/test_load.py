"""Under load: priorities, admission by cost, calls that come back, rows nobody wants any more."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fount.v1 import sampling_pb2
from service.caller import Anonymous, Caller, CallerLimits
from service.config import GatewayConfig
from service.domain import RangeItem
from service.gateway import Gateway
from service.workers.memory import MemoryPool
from tests.contract.conftest import Running
from tests.contract.sampling.test_sampling import data, request
from tests.contract.sampling.test_streams import at_rest, until

INTERACTIVE = sampling_pb2.PRIORITY_INTERACTIVE
SAMPLE_S = 0.001


@asynccontextmanager
async def serving(pool: MemoryPool, policy=None, **settings) -> AsyncIterator[Running]:
    """A gateway over workers that take a millisecond a sample, and say so."""
    pool.faults.sample_s = SAMPLE_S
    pool.batch_seconds = {1: SAMPLE_S, 64: 64 * SAMPLE_S}
    gateway = Gateway(pool, GatewayConfig(port=0, http_port=0, **settings), policy)
    await gateway.start()
    await gateway.wait_ready(5)
    running = Running(gateway, pool, grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}"))
    try:
        yield running
    finally:
        await running.channel.close()
        await gateway.stop(grace_s=0)


def pull(running: Running, count: int = 1_000_000, **fields):
    return running.sampling.Sample(request(count, **fields))


def sizes(pool: MemoryPool) -> list[int]:
    return [sum(item.count for item in call.items if isinstance(item, RangeItem)) for call in pool.calls]


def retry_s(error: grpc.aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)
    assert status is not None
    told = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(told) for detail in status.details)
    return told.retry_delay.seconds + told.retry_delay.nanos / 1e9


async def test_calls_are_as_long_as_bulk_may_be(pool: MemoryPool) -> None:
    async with serving(pool, max_batch_ms=20, bulk_batch_ms=100) as running:
        call = pull(running)
        await until(lambda: len(pool.calls) > 6)
        assert sizes(pool)[0] == 20  # the first is short, so that the first samples come soon
        assert max(sizes(pool)) <= 100
        assert sizes(pool)[5] >= 64
        call.cancel()


async def test_calls_are_short_while_interactive_work_is_about(pool: MemoryPool) -> None:
    async with serving(pool, max_batch_ms=20, bulk_batch_ms=200) as running:
        call = pull(running)
        await until(lambda: len(pool.calls) > 6)
        await running.sample(request(1, priority=INTERACTIVE))
        before = len(pool.calls)
        await until(lambda: len(pool.calls) > before + 4)
        assert max(sizes(pool)[before : before + 4]) <= 10  # two of them together take a worker 20 ms
        call.cancel()


async def test_what_comes_while_a_call_runs_shares_the_next(pool: MemoryPool) -> None:
    async with serving(pool, max_batch_ms=200, bulk_batch_ms=200) as running:
        await running.sample(request(10))
        before = len(pool.calls)
        long = asyncio.create_task(running.sample(request(150)))
        await until(lambda: len(pool.calls) > before)
        short = []
        for k in range(10):
            short.append(asyncio.create_task(running.sample(request(1, start_index=k))))
            await asyncio.sleep(0.005)
        await asyncio.gather(long, *short)
        assert sizes(pool)[before:] == [150, 10]


async def test_interactive_work_overtakes_bulk(pool: MemoryPool) -> None:
    async with serving(pool, max_batch_ms=20, bulk_batch_ms=200) as running:
        pulls = [pull(running, seed=k) for k in range(10)]
        await until(lambda: len(pool.calls) > 10)
        await running.sample(request(1, priority=INTERACTIVE))  # from here on calls are short
        begun = time.monotonic()
        for _ in range(5):
            await running.sample(request(1, priority=INTERACTIVE))
        assert time.monotonic() - begun < 5 * 0.1  # in bulk's turn, behind ten others, each would wait much longer
        for each in pulls:
            each.cancel()


async def test_a_caller_without_the_grant_may_not_hurry(pool: MemoryPool) -> None:
    class Patient:
        def identify(self, peer, metadata) -> Caller:
            return Caller(subject="pat", grants=frozenset({"sample:*"}))

    async with serving(pool, Patient()) as running:
        error = await running.refused(request(1, priority=INTERACTIVE))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "priority:interactive" in error.details()
        await running.sample(request(1))


@pytest.mark.parametrize(
    ("settings", "policy", "named"),
    [
        ({"max_queue_s": 1}, None, "toy 1"),
        ({"caller_queue_s": 1}, None, "the caller anonymous"),
        ({}, Anonymous(limits=CallerLimits(max_queue_s=1)), "the caller anonymous"),
        ({"total_queue_s": 1}, None, "this gateway"),
    ],
    ids=["model", "caller", "caller-of-its-own", "total"],
)
async def test_work_that_would_wait_too_long_is_refused_with_a_time_to_retry(pool, settings, policy, named) -> None:
    async with serving(pool, policy, **settings) as running:
        pulls = [pull(running, 900, seed=1)]
        await until(lambda: len(pool.calls) > 0)
        error = await running.refused(request(900))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"work wait for {named}" in error.details()
        assert 0.1 <= retry_s(error) <= 1.0
        await asyncio.sleep(retry_s(error))
        await running.sample(request(900))
        for each in pulls:
            each.cancel()


async def test_those_refused_are_not_told_to_come_at_once(pool: MemoryPool) -> None:
    async with serving(pool, max_queue_s=1) as running:
        call = pull(running, 900)
        await until(lambda: len(pool.calls) > 0)
        times = [retry_s(await running.refused(request(300))) for _ in range(4)]
        assert [round(b - a, 1) for a, b in itertools.pairwise(times)] == [0.3, 0.3, 0.3]
        call.cancel()


async def test_an_empty_queue_takes_any_request(pool: MemoryPool) -> None:
    async with serving(pool, max_queue_s=0.01) as running:
        _, chunks = await running.sample(request(100))
        assert len(data(chunks)) == 600


async def test_bulk_that_waits_does_not_refuse_interactive_work(pool: MemoryPool) -> None:
    async with serving(pool, max_queue_s=1) as running:
        call = pull(running, 900)
        await until(lambda: len(pool.calls) > 0)
        assert (await running.refused(request(900))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await running.sample(request(900, priority=INTERACTIVE))
        call.cancel()


async def test_a_refusal_leaves_nothing_behind(pool: MemoryPool) -> None:
    async with serving(pool, max_queue_s=1) as running:
        call = pull(running, 900)
        await until(lambda: len(pool.calls) > 0)
        for _ in range(3):
            await running.refused(request(900))
        call.cancel()
        scheduler = running.gateway.scheduler
        await until(lambda: at_rest(scheduler))
        assert (scheduler.buffer.streams, scheduler.buffer.held) == (0, 0)


async def test_a_worker_that_is_busy_is_asked_again_however_often(pool: MemoryPool) -> None:
    async with serving(pool) as running:
        _, whole = await running.sample(request(100))
        pool.faults.busy_calls = 20
        _, chunks = await running.sample(request(100))
        assert data(chunks) == data(whole)


async def test_a_lost_call_is_sent_again(pool: MemoryPool) -> None:
    async with serving(pool) as running:
        _, whole = await running.sample(request(300))
        pool.faults.lose_calls = 3
        _, chunks = await running.sample(request(300))
        assert data(chunks) == data(whole)


async def test_a_sample_that_kills_its_worker_ends_its_own_stream_alone(pool: MemoryPool) -> None:
    async with serving(pool) as running:
        pool.faults.deadly_indices = frozenset({5000})
        pool.faults.delay_s = 0.05  # long enough for all to share a call
        first, bad, last = await asyncio.gather(
            running.sample(request(4)), running.sample(request(4, start_index=4998)),
            running.sample(request(4, start_index=9000)), return_exceptions=True,
        )  # fmt: skip
        assert isinstance(bad, grpc.aio.AioRpcError)
        assert bad.code() is grpc.StatusCode.INTERNAL
        assert "died each of the 4 times" in bad.details()
        assert not isinstance(first, BaseException)
        assert not isinstance(last, BaseException)


async def test_rows_of_a_gone_client_never_reach_a_worker(pool: MemoryPool) -> None:
    async with serving(pool) as running:
        pool.faults.delay_s = 0.2
        running_calls = [pull(running, seed=1), pull(running, seed=2)]
        await until(lambda: len(pool.calls) == 2)
        gone = pull(running, seed=3)
        await asyncio.sleep(0.05)
        gone.cancel()
        await until(lambda: len(pool.calls) > 5)
        assert 3 not in {item.seed for call in pool.calls for item in call.items}
        for each in running_calls:
            each.cancel()


async def test_rows_of_a_late_client_are_not_sent_again(pool: MemoryPool) -> None:
    async with serving(pool) as running:
        pool.faults.lose_calls = 1
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await running.sample(request(4, seed=3), timeout=0.05)  # late before the pause of a repetition is over
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.sleep(0.3)
        assert len(pool.calls) == 1


async def test_what_was_made_in_time_is_delivered(pool: MemoryPool) -> None:
    async with serving(pool, max_batch_ms=20, bulk_batch_ms=20) as running:
        received = 0
        with pytest.raises(grpc.aio.AioRpcError) as error:  # noqa: PT012  # it is the loop that ends so
            async for response in running.sampling.Sample(request(1_000_000), timeout=0.5):
                received += response.chunk.count
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert received >= 100


async def test_two_workers_hold_two_calls_each(pool: MemoryPool) -> None:
    pool.workers_each = 2
    async with serving(pool) as running:
        pool.faults.delay_s = 0.3
        call = pull(running)
        await asyncio.sleep(0.2)
        assert len(pool.calls) == 4
        call.cancel()


async def test_what_calls_cost_is_remembered_from_one_request_to_the_next(pool: MemoryPool) -> None:
    async with serving(pool, bulk_batch_ms=20) as running:
        pool.faults.sample_s = 4 * SAMPLE_S  # slower than they said at warm-up
        for _ in range(3):
            await running.sample(request(40))
        before = len(pool.calls)
        await running.sample(request(40))
        assert max(sizes(pool)[before:]) <= 6


async def test_a_target_without_workers_is_forgotten(pool: MemoryPool) -> None:
    async with serving(pool) as running:
        await running.sample(request(4))
        pool.set_up(False)
        assert not running.gateway.scheduler._backlogs
