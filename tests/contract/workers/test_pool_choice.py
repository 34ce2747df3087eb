"""The choice of a replica: the least loaded, within its capacity, not one that failed or stalls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest

from service.domain import Target
from service.errors import TooLate, WorkerBusy, WorkerFault, WorkerLost
from service.workers.torchserve.pool import TorchServePool
from tests.contract.fake_torchserve import FakeTorchServe, description, ready_target, sample_call, started_pool
from tests.waiting import until

DIED = (grpc.StatusCode.INTERNAL, "Worker died.")


@dataclass
class Pooled:
    """A pool over fakes, all of whose workers are ready."""

    pool: TorchServePool
    fakes: tuple[FakeTorchServe, ...]
    target: Target

    def call(self, cost_s: float | None = None, timeout_s: float = 5) -> Awaitable:
        return asyncio.ensure_future(self.pool.call(sample_call(self.target, cost_s), timeout_s=timeout_s))

    @property
    def drawn(self) -> list[int]:
        return [fake.predictions for fake in self.fakes]


@asynccontextmanager
async def pooled(*fakes: FakeTorchServe) -> AsyncIterator[Pooled]:
    async with started_pool(*fakes) as pool:
        await until(lambda: sum(offer.workers for offer in pool.offers()) == sum(len(fake.pids) for fake in fakes))
        yield Pooled(pool, fakes, ready_target(pool))


@pytest.fixture
def stalled_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.workers.torchserve.pool._STALLED_S", 0.2)


@pytest.mark.parametrize("cost_s", [None, 0.02], ids=["cost-unknown", "cost-known"])
async def test_calls_of_equal_cost_are_shared_equally(cost_s: float | None) -> None:
    async with pooled(FakeTorchServe(), FakeTorchServe()) as both:
        for _ in range(10):
            await both.call(cost_s)
        await asyncio.gather(*(both.call(cost_s) for _ in range(10)))
        assert both.drawn == [10, 10]


async def test_costs_are_shared_rather_than_calls() -> None:
    async with pooled(FakeTorchServe(pids=[1, 2, 3]), FakeTorchServe(pids=[4, 5, 6])) as both:
        both.fakes[0].stalled = both.fakes[1].stalled = asyncio.Event()
        calls = [both.call(1.0), *(both.call(0.2) for _ in range(4))]
        await until(lambda: sum(both.drawn) == 5)
        both.fakes[0].stalled.set()
        await asyncio.gather(*calls)
        assert sorted(both.drawn) == [1, 4]


async def test_a_replica_with_more_workers_gets_more() -> None:
    async with pooled(FakeTorchServe(pids=[1]), FakeTorchServe(pids=[2, 3, 4])) as both:
        both.fakes[0].delay_s = both.fakes[1].delay_s = 0.05
        await asyncio.gather(*(both.call(0.05) for _ in range(8)))
        assert both.drawn == [2, 6]


async def test_the_capacity_is_two_calls_a_worker_of_one_target() -> None:
    async with pooled(FakeTorchServe(pids=[1, 2]), FakeTorchServe()) as both:
        other = Target(model=both.target.model, numerics="others")
        both.fakes[0].stalled = both.fakes[1].stalled = asyncio.Event()
        calls = [both.call() for _ in range(5)]
        await until(lambda: sum(both.drawn) == 5)
        assert (both.pool.capacity(both.target), both.pool.capacity(other)) == (1, 0)
        both.fakes[0].stalled.set()
        await asyncio.gather(*calls)
        assert both.pool.capacity(both.target) == 6


async def test_a_cheap_call_goes_to_free_capacity_rather_than_to_the_least_load() -> None:
    async with pooled(FakeTorchServe(), FakeTorchServe()) as both:
        both.fakes[0].stalled = both.fakes[1].stalled = asyncio.Event()
        calls = [both.call(cost) for cost in (9.0, 0.1, 0.1)]
        await until(lambda: sum(both.drawn) == 3)
        calls.append(both.call(0.1))
        await until(lambda: sum(both.drawn) == 4)
        assert both.drawn == [2, 2]
        both.fakes[0].stalled.set()
        await asyncio.gather(*calls)


async def test_the_least_loaded_replica_is_called_beyond_all_capacity() -> None:
    async with pooled(FakeTorchServe(), FakeTorchServe()) as both:
        both.fakes[0].stalled = both.fakes[1].stalled = asyncio.Event()
        calls = [both.call(1.0) for _ in range(6)]
        await until(lambda: sum(both.drawn) == 6)
        assert (both.drawn, both.pool.capacity(both.target)) == ([3, 3], 0)
        both.fakes[0].stalled.set()
        await asyncio.gather(*calls)


async def test_a_lost_call_is_repeated_elsewhere() -> None:
    async with pooled(FakeTorchServe(reply=DIED), FakeTorchServe()) as both:
        with pytest.raises(WorkerLost) as lost:
            await both.call()
        assert lost.value.died
        await asyncio.gather(*(both.call() for _ in range(4)))
        assert both.drawn == [1, 4]


async def test_a_replica_that_lost_a_call_has_no_capacity_for_a_moment() -> None:
    async with pooled(FakeTorchServe(reply=DIED), FakeTorchServe()) as both:
        seen: list[int] = []
        both.pool.watch(lambda: seen.append(both.pool.capacity(both.target)))
        with pytest.raises(WorkerLost):
            await both.call()
        assert both.pool.capacity(both.target) == 2
        await until(lambda: seen and seen[-1] == 4)


async def test_the_only_replica_is_called_again_after_it_lost_a_call() -> None:
    async with pooled(FakeTorchServe(reply=DIED)) as one:
        for _ in range(2):
            with pytest.raises(WorkerLost):
                await one.call()
        assert one.pool.capacity(one.target) == 2


async def test_a_replica_whose_handler_raised_is_not_avoided() -> None:
    async with pooled(FakeTorchServe(reply=(grpc.StatusCode.UNAVAILABLE, "Prediction failed"))) as one:
        with pytest.raises(WorkerFault):
            await one.call()
        assert one.pool.capacity(one.target) == 2
        (route,) = one.pool.replicas[0].routes(one.target)
        assert not one.pool.replicas[0].is_avoided(route)


async def test_a_full_queue_means_busy_and_not_lost() -> None:
    async with pooled(FakeTorchServe(queue=1)) as one:
        one.fakes[0].stalled = asyncio.Event()
        first = one.call()
        await until(lambda: one.drawn == [1])
        with pytest.raises(WorkerBusy):
            await one.call()
        one.fakes[0].stalled.set()
        await first
        assert one.pool.workers(one.target) == 1


@pytest.mark.usefixtures("stalled_early")
async def test_a_stalled_call_is_lost_and_the_next_goes_to_another_replica() -> None:
    async with pooled(FakeTorchServe(), FakeTorchServe()) as both:
        both.fakes[0].stalled = asyncio.Event()
        with pytest.raises(WorkerLost, match=r"no answer for 0\.2 s"):
            await both.call()
        await both.call()
        assert both.drawn == [1, 1]
        assert both.fakes[0].requests == both.fakes[1].requests


@pytest.mark.usefixtures("stalled_early")
async def test_a_stalled_call_is_lost_when_the_only_replica_has_another_worker() -> None:
    async with pooled(FakeTorchServe(pids=[1, 2])) as one:
        one.fakes[0].stalled = asyncio.Event()
        with pytest.raises(WorkerLost) as lost:
            await one.call()
        assert not lost.value.died


@pytest.mark.usefixtures("stalled_early")
async def test_a_stalled_call_counts_as_load_until_it_ends() -> None:
    async with pooled(FakeTorchServe(), FakeTorchServe()) as both:
        stalled = both.fakes[0].stalled = asyncio.Event()
        with pytest.raises(WorkerLost):
            await both.call()
        await both.call()
        await until(lambda: both.pool.capacity(both.target) == 3)
        stalled.set()
        await until(lambda: both.pool.capacity(both.target) == 4)


@pytest.mark.usefixtures("stalled_early")
async def test_a_stalled_call_on_the_only_worker_is_awaited() -> None:
    async with pooled(FakeTorchServe()) as one:
        one.fakes[0].stalled = asyncio.Event()
        waiting = one.call()
        await asyncio.sleep(0.4)
        assert one.drawn == [1]
        one.fakes[0].stalled.set()
        await waiting


@pytest.mark.usefixtures("stalled_early")
async def test_a_call_is_stalled_after_ten_times_its_cost() -> None:
    async with pooled(FakeTorchServe(delay_s=0.4), FakeTorchServe(delay_s=0.4)) as both:
        await both.call(cost_s=0.1)
        with pytest.raises(WorkerLost):
            await both.call(cost_s=0.01)


@pytest.mark.usefixtures("stalled_early")
async def test_a_call_with_less_time_than_a_stall_is_too_late() -> None:
    async with pooled(FakeTorchServe(delay_s=1), FakeTorchServe(delay_s=1)) as both:
        with pytest.raises(TooLate):
            await both.call(timeout_s=0.1)


async def test_replicas_with_different_batch_sizes_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    one, other = description(seconds={1: 1e-3}), description(seconds={8: 1e-3})
    async with pooled(FakeTorchServe(described=one), FakeTorchServe(described=other)) as both:
        both.pool._replica_changed()
        assert caplog.text.count("execute different batch sizes") == 1
