"""The gateway under load: priorities, admission by cost, repeated calls, cancelled rows."""

from __future__ import annotations

import asyncio
import itertools
import time

import grpc
import pytest
from google.rpc import error_details_pb2

from service.caller import Anonymous, Caller, CallerLimits
from service.calls import RangeItem
from service.workers.memory import MemoryPool
from tests.contract.gateways import INTERACTIVE, SAMPLE_S, data, details, is_idle, pull, request, serving_slowly
from tests.waiting import until


def sizes(pool: MemoryPool) -> list[int]:
    return [sum(item.count for item in call.items if isinstance(item, RangeItem)) for call in pool.calls]


def retry_s(error: grpc.aio.AioRpcError) -> float:
    delay = details(error, error_details_pb2.RetryInfo).retry_delay
    return delay.seconds + delay.nanos / 1e9


async def test_bulk_calls_grow_to_their_limit(pool: MemoryPool) -> None:
    async with serving_slowly(pool, max_batch_ms=20, bulk_batch_ms=100) as running:
        call = pull(running)
        await until(lambda: len(pool.calls) > 6)
        assert sizes(pool)[0] == 20  # the first is short, so that the first samples arrive soon
        assert max(sizes(pool)) <= 100
        assert sizes(pool)[5] >= 64
        call.cancel()


async def test_calls_are_short_while_there_is_interactive_work(pool: MemoryPool) -> None:
    async with serving_slowly(pool, max_batch_ms=20, bulk_batch_ms=200) as running:
        call = pull(running)
        await until(lambda: len(pool.calls) > 6)
        await running.sample(request(1, priority=INTERACTIVE))
        before = len(pool.calls)
        await until(lambda: len(pool.calls) > before + 4)
        assert max(sizes(pool)[before : before + 4]) <= 10  # two of them together take a worker 20 ms
        call.cancel()


async def test_requests_that_arrive_during_a_call_share_the_next(pool: MemoryPool) -> None:
    async with serving_slowly(pool, max_batch_ms=200, bulk_batch_ms=200) as running:
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
    async with serving_slowly(pool, max_batch_ms=20, bulk_batch_ms=200) as running:
        pulls = [pull(running, seed=k) for k in range(10)]
        await until(lambda: len(pool.calls) > 10)
        await running.sample(request(1, priority=INTERACTIVE))  # from here on calls are short
        started = time.monotonic()
        for _ in range(5):
            await running.sample(request(1, priority=INTERACTIVE))
        assert time.monotonic() - started < 5 * 0.1  # behind ten bulk streams, each would wait much longer
        for each in pulls:
            each.cancel()


async def test_interactive_priority_needs_a_grant(pool: MemoryPool) -> None:
    class Policy:
        def identify(self, peer, metadata) -> Caller:
            return Caller(subject="bulk", grants=frozenset({"sample:*"}))

    async with serving_slowly(pool, Policy()) as running:
        error = await running.refused(request(1, priority=INTERACTIVE))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "priority:interactive" in error.details()
        await running.sample(request(1))


@pytest.mark.parametrize(
    ("settings", "policy", "subject"),
    [
        ({"max_queue_s": 1}, None, "toy 1"),
        ({"caller_queue_s": 1}, None, "toy 1 from the caller anonymous"),
        ({}, Anonymous(limits=CallerLimits(max_queue_s=1)), "toy 1 from the caller anonymous"),
        ({"total_queue_s": 1}, None, "this gateway"),
    ],
    ids=["model", "caller", "caller-with-own-limit", "total"],
)
async def test_work_above_a_queue_limit_is_refused_with_a_time_to_retry(pool, settings, policy, subject) -> None:
    async with serving_slowly(pool, policy, **settings) as running:
        pulls = [pull(running, 900, seed=1)]
        await until(lambda: len(pool.calls) > 0)
        error = await running.refused(request(900))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"work wait for {subject}" in error.details()
        assert 0.1 <= retry_s(error) <= 1.0
        await asyncio.sleep(retry_s(error))
        await running.sample(request(900))
        for each in pulls:
            each.cancel()


async def test_the_share_of_a_caller_grows_with_the_workers_of_a_model() -> None:
    async with serving_slowly(MemoryPool(workers_each=4), caller_queue_s=1) as running:
        calls = [pull(running, 900, seed=seed) for seed in range(4)]
        begun = [(await each.read()).HasField("header") for each in calls]
        assert begun == [True, True, True, True]
        assert "from the caller anonymous" in (await running.refused(request(4000))).details()
        for each in calls:
            each.cancel()


async def test_retry_times_of_refused_requests_are_spaced(pool: MemoryPool) -> None:
    async with serving_slowly(pool, max_queue_s=1) as running:
        call = pull(running, 5000)
        await until(lambda: len(pool.calls) > 0)
        times = [retry_s(await running.refused(request(300))) for _ in range(4)]
        assert [round(b - a, 1) for a, b in itertools.pairwise(times)] == [0.3, 0.3, 0.3]
        call.cancel()


async def test_an_empty_queue_accepts_any_request(pool: MemoryPool) -> None:
    async with serving_slowly(pool, max_queue_s=0.01) as running:
        _, chunks = await running.sample(request(100))
        assert len(data(chunks)) == 600


async def test_waiting_bulk_work_does_not_refuse_interactive_work(pool: MemoryPool) -> None:
    async with serving_slowly(pool, max_queue_s=1) as running:
        call = pull(running, 900)
        await until(lambda: len(pool.calls) > 0)
        assert (await running.refused(request(900))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await running.sample(request(900, priority=INTERACTIVE))
        call.cancel()


async def test_a_refused_stream_is_removed(pool: MemoryPool) -> None:
    async with serving_slowly(pool, max_queue_s=1) as running:
        call = pull(running, 900)
        await until(lambda: len(pool.calls) > 0)
        for _ in range(3):
            await running.refused(request(900))
        call.cancel()
        scheduler = running.gateway.scheduler
        await until(lambda: is_idle(scheduler))
        assert (scheduler.buffer.streams, scheduler.buffer.held) == (0, 0)


async def test_a_call_to_a_busy_worker_is_repeated_without_a_limit(pool: MemoryPool) -> None:
    async with serving_slowly(pool) as running:
        _, whole = await running.sample(request(100))
        pool.faults.busy_calls = 20
        _, chunks = await running.sample(request(100))
        assert data(chunks) == data(whole)


async def test_a_lost_call_is_repeated(pool: MemoryPool) -> None:
    async with serving_slowly(pool) as running:
        _, whole = await running.sample(request(300))
        pool.faults.lose_calls = 3
        _, chunks = await running.sample(request(300))
        assert data(chunks) == data(whole)


async def test_a_sample_that_ends_its_worker_fails_its_own_stream_alone(pool: MemoryPool) -> None:
    async with serving_slowly(pool) as running:
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


async def test_rows_of_a_client_that_left_are_never_sent_to_a_worker(pool: MemoryPool) -> None:
    async with serving_slowly(pool) as running:
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


async def test_rows_are_not_repeated_after_the_deadline(pool: MemoryPool) -> None:
    async with serving_slowly(pool) as running:
        await running.sample(request(1))  # connects
        pool.calls.clear()
        pool.faults.lose_calls = 1
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await running.sample(request(4, seed=3), timeout=0.08)  # shorter than the pause before the repetition
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.sleep(0.3)
        assert len(pool.calls) == 1


async def test_samples_drawn_before_the_deadline_are_delivered(pool: MemoryPool) -> None:
    async with serving_slowly(pool, max_batch_ms=20, bulk_batch_ms=20) as running:
        received = 0
        with pytest.raises(grpc.aio.AioRpcError) as error:  # noqa: PT012  # the loop raises it
            async for response in running.sampling.Sample(request(1_000_000), timeout=0.5):
                received += response.chunk.count
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert received >= 100


async def test_two_workers_hold_two_calls_each(pool: MemoryPool) -> None:
    pool.workers_each = 2
    async with serving_slowly(pool) as running:
        pool.faults.delay_s = 0.3
        call = pull(running)
        await asyncio.sleep(0.2)
        assert len(pool.calls) == 4
        call.cancel()


async def test_measured_costs_are_kept_between_requests(pool: MemoryPool) -> None:
    async with serving_slowly(pool, bulk_batch_ms=20) as running:
        pool.faults.sample_s = 4 * SAMPLE_S  # slower than at warm-up
        for _ in range(3):
            await running.sample(request(40))
        before = len(pool.calls)
        await running.sample(request(40))
        assert max(sizes(pool)[before:]) <= 6


async def test_the_backlog_of_a_target_without_workers_is_removed(pool: MemoryPool) -> None:
    async with serving_slowly(pool) as running:
        await running.sample(request(4))
        pool.set_up(up=False)
        assert not running.gateway.scheduler._backlogs
