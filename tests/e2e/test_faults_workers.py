"""Workers that are killed or stopped in the middle of a batch: no request is lost, hung or answered wrongly."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.e2e.faults import OK, Stack, alive, draw_many, until

PACE_S = 0.05
REPLACED_S = 180  # a call through TorchServe every 15 s, which waits 120 s for its worker
MIXED = [600] * 8 + [1] * 40


@pytest.fixture
def paced(planted: Stack) -> Iterator[Stack]:
    """Workers slow enough to be met in the middle of a batch; whole again afterwards."""
    planted.wait_until_ready()
    planted.traces.set_pace(PACE_S)
    yield planted
    planted.traces.set_pace(0)
    planted.wait_until_ready()


def busy_worker(stack: Stack) -> psutil.Process:
    """A worker that started a batch this instant."""
    since = time.time()
    until(lambda: bool(stack.traces.batches(since)), 20)
    return psutil.Process(stack.traces.batches(since)[-1].pid)


async def test_a_worker_killed_in_the_middle_of_a_batch_loses_no_request(paced: Stack) -> None:
    requests = asyncio.create_task(draw_many(paced.served.server, MIXED))
    await asyncio.sleep(0.5)
    worker = await asyncio.to_thread(busy_worker, paced)
    worker.kill()
    assert paced.check(await requests) == {OK: len(MIXED)}
    assert not worker.is_running()


@pytest.mark.slow
async def test_requests_wait_for_workers_that_were_all_killed(paced: Stack) -> None:
    requests = asyncio.create_task(draw_many(paced.served.server, MIXED))
    await asyncio.sleep(0.5)
    killed = alive(paced.served)
    for worker in killed:
        worker.kill()
    assert paced.check(await requests) == {OK: len(MIXED)}
    assert not {each.pid for each in killed} & {each.pid for each in alive(paced.served)}


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [5, 20], ids="{}-s".format)
async def test_requests_are_answered_while_a_worker_is_stopped_for(paced: Stack, seconds: int) -> None:
    counts = [200] * 8 + [1] * 20
    requests = asyncio.create_task(draw_many(paced.served.server, counts))
    await asyncio.sleep(0.2)
    worker = await asyncio.to_thread(busy_worker, paced)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
        assert requests.done()  # what the stopped worker holds was drawn once more by the other
        late = await draw_many(paced.served.server, [1] * 20, timeout_s=10)
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    assert paced.check([*await requests, *late]) == {OK: len(counts) + 20}
    assert worker.pid in {each.pid for each in alive(paced.served)}


@pytest.mark.slow
async def test_a_worker_that_stays_stopped_is_replaced(planted: Stack, way: str) -> None:
    if way == "--no-direct-calls":
        pytest.skip("then TorchServe itself notices it by the call that the worker holds")
    planted.wait_until_ready()
    worker = alive(planted.served)[0]
    os.kill(worker.pid, signal.SIGSTOP)
    await asyncio.to_thread(until, lambda: not psutil.pid_exists(worker.pid), REPLACED_S)
    planted.wait_until_ready()
    assert planted.check(await draw_many(planted.served.server, [1] * 20)) == {OK: 20}
    assert len(alive(planted.served)) == 2
