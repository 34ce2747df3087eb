"""Worker processes that are called directly, on sockets of their own, and what remains of TorchServe's queue."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from service.domain import ModelState, Target
from service.errors import NotReady, TooLate, WorkerBusy, WorkerFault, WorkerLost
from service.workers.torchserve import replica, routes
from service.workers.torchserve.pool import TorchServePool
from tests.contract.fake_torchserve import (
    FakeTorchServe,
    FakeWorker,
    described_at,
    ready_target,
    running,
    sample_call,
    started_pool,
)
from tests.waiting import until


@dataclass
class Direct:
    """A pool over one fake TorchServe whose workers 11, 12, … are called directly."""

    pool: TorchServePool
    torchserve: FakeTorchServe
    workers: list[FakeWorker]
    target: Target

    async def call(self, timeout_s: float = 5) -> None:
        await self.pool.call(sample_call(self.target), timeout_s=timeout_s)

    @property
    def drawn(self) -> list[int]:
        return [len(worker.requests) for worker in self.workers]


@asynccontextmanager
async def direct(folder: Path, count: int = 1) -> AsyncIterator[Direct]:
    workers = [FakeWorker() for _ in range(count)]
    sockets = [f"unix:{folder}/{11 + k}.sock" for k in range(count)]
    pids = list(range(11, 11 + count))
    torchserve = FakeTorchServe(pids=pids, described=described_at(dict(zip(pids, sockets, strict=True))))
    async with AsyncExitStack() as stack:
        for worker, socket in zip(workers, sockets, strict=True):
            await worker.start(socket)
            stack.push_async_callback(worker.stop)
        pool = await stack.enter_async_context(started_pool(torchserve))
        await until(lambda: sum(offer.workers for offer in pool.offers()) == count)
        try:
            yield Direct(pool, torchserve, workers, ready_target(pool))
        finally:
            for worker in workers:
                if worker.stalled:
                    worker.stalled.set()


async def test_calls_go_to_the_worker_and_not_through_torchserve(short_path: Path) -> None:
    async with direct(short_path) as one:
        await one.call()
        assert (one.drawn, one.torchserve.predictions) == ([1], 0)


async def test_they_carry_the_token(short_path: Path) -> None:
    async with direct(short_path) as one:
        await one.call()
        assert ("authorization", "Bearer key") in one.workers[0].seen_metadata


async def test_each_worker_gets_its_share(short_path: Path) -> None:
    async with direct(short_path, 2) as both:
        for worker in both.workers:
            worker.stalled = asyncio.Event()
        calls = [asyncio.ensure_future(both.call()) for _ in range(4)]
        await until(lambda: sum(both.drawn) == 4)
        assert (both.drawn, both.pool.capacity(both.target)) == ([2, 2], 0)
        for worker in both.workers:
            worker.stalled.set()
        await asyncio.gather(*calls)
        assert both.pool.capacity(both.target) == 4


async def test_a_port_is_on_the_host_of_torchserve() -> None:
    worker = FakeWorker()
    port = await worker.start("127.0.0.1:0")
    try:
        async with started_pool(FakeTorchServe(described=described_at({11: f":{port}"}))) as pool:
            await until(lambda: any(offer.target for offer in pool.offers()))
            await pool.call(sample_call(ready_target(pool)), timeout_s=5)
        assert len(worker.requests) == 1
    finally:
        await worker.stop()


async def test_a_worker_that_cannot_be_reached_is_called_through_torchserve(short_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(routes, "_CONNECT_S", 0.1)
    torchserve = FakeTorchServe(described=described_at({11: f"unix:{short_path}/absent.sock"}))
    async with started_pool(torchserve) as pool:
        await until(lambda: any(offer.target for offer in pool.offers()))
        await pool.call(sample_call(ready_target(pool)), timeout_s=5)
        assert torchserve.predictions == 1


async def test_without_direct_calls_everything_goes_through_torchserve(short_path: Path) -> None:
    worker, socket = FakeWorker(), f"unix:{short_path}/11.sock"
    await worker.start(socket)
    torchserve = FakeTorchServe(described=described_at({11: socket}))
    async with running(torchserve) as address:
        pool = TorchServePool([address], direct=False)
        await pool.start()
        try:
            await until(lambda: any(offer.target for offer in pool.offers()))
            await pool.call(sample_call(ready_target(pool)), timeout_s=5)
        finally:
            await pool.close()
            await worker.stop()
    assert (len(worker.requests), torchserve.predictions) == (0, 1)


async def test_a_lost_worker_has_no_capacity_at_once_and_the_others_go_on(short_path: Path) -> None:
    async with direct(short_path, 2) as both:
        both.workers[0].stalled = asyncio.Event()
        calls = [asyncio.ensure_future(both.call()) for _ in range(2)]
        await until(lambda: both.drawn == [1, 1])
        await both.workers[0].stop()
        with pytest.raises(WorkerLost, match="went away"):
            await calls[0]
        await calls[1]
        assert (both.pool.workers(both.target), both.pool.capacity(both.target)) == (1, 2)
        await both.call()
        assert both.drawn == [1, 2]


async def test_a_worker_whose_process_ended_died(short_path: Path) -> None:
    async with direct(short_path) as one:
        one.workers[0].stalled = asyncio.Event()
        waiting = asyncio.ensure_future(one.call())
        await until(lambda: one.drawn == [1])
        one.torchserve.pids = []
        await one.workers[0].stop()
        with pytest.raises(WorkerLost) as lost:
            await waiting
        assert lost.value.died
        with pytest.raises(NotReady):
            await one.call()


async def test_a_model_whose_only_worker_is_lost_is_loading_until_it_is_back(short_path: Path) -> None:
    async with direct(short_path) as one:
        await one.workers[0].stop()
        await until(lambda: one.pool.offers()[0].state is ModelState.LOADING)
        assert one.pool.offers()[0].reason == "its workers do not answer"
        await one.workers[0].start(f"unix:{short_path}/11.sock")
        await until(lambda: one.pool.workers(one.target) == 1)
        await one.call()
        assert one.torchserve.predictions == 0


async def test_a_cancelled_call_is_cancelled_in_the_worker(short_path: Path) -> None:
    async with direct(short_path) as one:
        one.workers[0].stalled = asyncio.Event()
        waiting = asyncio.ensure_future(one.call())
        await until(lambda: one.drawn == [1])
        waiting.cancel()
        await until(lambda: one.workers[0].cancelled == 1)
        assert one.pool.capacity(one.target) == 2


async def test_a_worker_that_answers_too_late_is_used_again_once_it_executes_something(short_path: Path) -> None:
    async with direct(short_path) as one:
        one.workers[0].stalled = asyncio.Event()
        with pytest.raises(TooLate):
            await one.call(timeout_s=0.1)
        assert one.pool.workers(one.target) == 0
        one.workers[0].stalled.set()
        await until(lambda: one.pool.workers(one.target) == 1)
        await one.call()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, WorkerBusy),
        (grpc.StatusCode.UNAUTHENTICATED, WorkerLost),
        (grpc.StatusCode.UNAVAILABLE, WorkerLost),
        (grpc.StatusCode.UNKNOWN, WorkerFault),
    ],
)
async def test_a_status_becomes_an_error_of_the_service(short_path: Path, code, error: type[Exception]) -> None:
    async with direct(short_path) as one:
        one.workers[0].refusal = (code, "no")
        with pytest.raises(error):
            await one.call()


async def test_torchserve_is_called_now_and_then_so_that_it_finds_a_stuck_worker(short_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(replica, "_LIVENESS_S", 0.05)
    async with direct(short_path) as one:
        described = one.torchserve.descriptions
        await until(lambda: one.torchserve.descriptions >= described + 3)


WORKER_PROCESS = """
import asyncio, sys
from tests.contract.fake_torchserve import FakeWorker

async def run():
    worker = FakeWorker()
    await worker.start(sys.argv[1])
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(run())
"""


async def test_a_stopped_process_is_lost_within_seconds_and_used_again_when_it_goes_on(short_path: Path) -> None:
    socket = f"unix:{short_path}/w.sock"
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER_PROCESS, socket], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}
    )
    try:
        await asyncio.to_thread(process.stdout.readline)
        async with started_pool(
            FakeTorchServe(pids=[process.pid], described=described_at({process.pid: socket}))
        ) as pool:
            await until(lambda: any(offer.target for offer in pool.offers()))
            target = ready_target(pool)
            await pool.call(sample_call(target), timeout_s=5)
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(WorkerLost) as lost:
                await pool.call(sample_call(target), timeout_s=20)
            assert (lost.value.died, pool.workers(target)) == (False, 0)
            process.send_signal(signal.SIGCONT)
            await until(lambda: pool.workers(target) == 1)
            await pool.call(sample_call(target), timeout_s=5)
    finally:
        process.kill()
        process.communicate()
