"""A real TorchServe that is killed or stopped comes back, with the same bytes and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from fount import Client
from fount.errors import ServerUnavailable
from fount.sampling.types import Chunk
from service.calls import Call, RangeItem, Rows
from service.domain import Dtype, Operation, Parameters, Target
from service.errors import WorkerBusy, WorkerLost
from service.workers.torchserve import embedded as embedded_module
from service.workers.torchserve.embedded import EmbeddedPool
from service.workers.torchserve.launch import TorchServeConfig
from tests.e2e.processes import Served, serving
from tests.waiting import until

BACK_S = 90


@pytest.fixture
def temporary(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a TorchServe of this process makes its folder."""
    monkeypatch.setattr("tempfile.tempdir", str(short_path))
    return short_path


@asynccontextmanager
async def embedded(archives: Path, one: Path, workers: int = 1, *, direct: bool = True) -> AsyncIterator[EmbeddedPool]:
    """A pool over a TorchServe of one model, with all its workers ready."""
    one.mkdir()
    os.link(archives / "digits-vae-1.0.mar", one / "digits-vae-1.0.mar")
    config = TorchServeConfig(archives=one, state=archives.parent / "state", workers=workers, direct=direct)
    pool = EmbeddedPool(config)
    await pool.start()
    try:
        await until(lambda: sum(offer.workers for offer in pool.offers()) == workers, BACK_S)
        yield pool
    finally:
        await pool.close()


def target(pool: EmbeddedPool) -> Target:
    return next(offer.target for offer in pool.offers() if offer.target)


def family(pool: EmbeddedPool) -> list[psutil.Process]:
    java = psutil.Process(pool.processes[0].pid)
    return [java, *java.children(recursive=True)]


def workers_of(pool: EmbeddedPool) -> list[psutil.Process]:
    return [each for each in family(pool)[1:] if "python" in each.name()]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


async def draw(pool: EmbeddedPool, of: Target) -> bytes:
    item = RangeItem(seed=3, start_index=0, count=16, labels=None, dtype=Dtype.UINT8)
    call = Call(target=of, operation=Operation.SAMPLE, parameters=Parameters(), items=(item,), cost_s=0.01)
    outcome = (await pool.call(call, timeout_s=60)).outcomes[0]
    assert isinstance(outcome, Rows)
    return outcome.array.tobytes()


async def draw_as_scheduled(pool: EmbeddedPool, of: Target) -> bytes:
    """Repeat lost calls, as the scheduler does."""
    while True:
        try:
            return await draw(pool, of)
        except WorkerLost:
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_killed_java_comes_back_with_the_same_bytes_and_leaves_nothing(archives, tmp_path, temporary) -> None:
    async with embedded(archives, tmp_path / "one") as pool:
        toy, before, whole = target(pool), family(pool), await draw(pool, target(pool))
        folders = set(temporary.iterdir())
        workers_of(pool)[0].suspend()  # so that the call is in flight for certain
        lost = asyncio.create_task(draw(pool, toy))
        await asyncio.sleep(0.3)
        before[0].kill()
        with pytest.raises(WorkerLost):
            await asyncio.wait_for(lost, 10)
        await until(lambda: not pool.workers(toy), BACK_S)
        assert "TorchServe was restarted" in pool.offers()[0].reason
        await until(lambda: pool.workers(toy) == 1, BACK_S)
        assert await draw(pool, toy) == whole
        assert alive(before) == []
        assert len(set(temporary.iterdir())) == 1
        assert not folders & set(temporary.iterdir())
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
async def test_a_stopped_java_is_replaced(archives, tmp_path, temporary, monkeypatch) -> None:
    monkeypatch.setattr(embedded_module, "_UNRESPONSIVE_S", 2.0)
    monkeypatch.setattr("service.workers.torchserve.channel._MANAGEMENT_TIMEOUT_S", 1.0)
    async with embedded(archives, tmp_path / "one") as pool:
        toy, before, whole = target(pool), family(pool), await draw(pool, target(pool))
        before[0].suspend()
        await until(lambda: alive(before) == [], BACK_S)
        await until(lambda: pool.workers(toy) == 1, BACK_S)
        assert await draw(pool, toy) == whole


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0])
async def test_closing_while_it_is_started_again_leaves_nothing(archives, tmp_path, temporary, after_s) -> None:
    mine = psutil.Process()
    before = set(mine.children(recursive=True))
    async with embedded(archives, tmp_path / "one") as pool:
        toy = target(pool)
        family(pool)[0].kill()
        await until(lambda: not pool.workers(toy), BACK_S)
        await asyncio.sleep(after_s)
    assert alive([each for each in mine.children(recursive=True) if each not in before]) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
async def test_a_stopped_worker_of_two_delays_no_request(archives, tmp_path, temporary) -> None:
    async with embedded(archives, tmp_path / "one", workers=2) as pool:
        toy, whole = target(pool), await draw(pool, target(pool))
        stopped = workers_of(pool)[0]
        stopped.suspend()
        answers = await asyncio.wait_for(asyncio.gather(*(draw_as_scheduled(pool, toy) for _ in range(8))), 30)
        stopped.resume()
        assert set(answers) == {whole}
        await until(lambda: pool.capacity(toy) == 4, BACK_S)


@pytest.mark.slow
async def test_a_stopped_only_worker_is_waited_for_and_its_full_queue_is_busy(archives, tmp_path, temporary) -> None:
    async with embedded(archives, tmp_path / "one", direct=False) as pool:  # calls wait in TorchServe's queue
        toy, whole = target(pool), await draw(pool, target(pool))
        worker = workers_of(pool)[0]
        worker.suspend()
        # One runs; the queue holds two of this gateway and two to spare, since one that runs has left it.
        waiting = [asyncio.create_task(draw(pool, toy)) for _ in range(5)]
        await asyncio.sleep(0.5)
        with pytest.raises(WorkerBusy):
            await draw(pool, toy)
        assert not any(each.done() for each in waiting)
        worker.resume()
        assert set(await asyncio.wait_for(asyncio.gather(*waiting), 30)) == {whole}


def bytes_of(chunk: Chunk) -> bytes:
    return np.asarray(chunk).tobytes()


@pytest.fixture
def own(archives: Path, tmp_path: Path) -> Iterator[Served]:
    with serving(archives, tmp_path) as served:
        yield served


@pytest.mark.slow
def test_a_stream_meets_a_killed_java_and_ends_well_or_says_why(own: Served) -> None:
    fields = {"count": 60_000, "seed": 4, "encoding": "uint8"}
    with Client(own.server, timeout_s=BACK_S) as client:
        whole = client.sample("digits-vae", **fields).tobytes()
        stream = client.stream("digits-vae", **fields)
        parts = [bytes_of(next(stream))]
        os.kill(own.java().pid, signal.SIGKILL)
        try:
            parts += [bytes_of(part) for part in stream]
            assert b"".join(parts) == whole
        except ServerUnavailable:
            assert whole.startswith(b"".join(parts))
        ends = time.monotonic() + BACK_S
        while True:
            try:
                assert client.sample("digits-vae", **fields).tobytes() == whole
                break
            except ServerUnavailable:
                assert time.monotonic() < ends
                time.sleep(0.2)
