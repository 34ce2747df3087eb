"""Clients that vanish or are late: their rows never reach a worker, and everybody else gets theirs."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from fount.sampling.request import sample_request
from tests.e2e.faults import OK, SEED, Stack, alive, draw, draw_many, sampling
from tests.e2e.planted import NAME

GONE, LATE = 5, 6
"""Labels that only clients ask for who will be gone, or whose deadline will have passed."""


@pytest.fixture
def whole(planted: Stack) -> Iterator[Stack]:
    planted.wait_until_ready()
    yield planted
    planted.traces.set_pace(0)


@contextmanager
def stopped_workers(stack: Stack) -> Iterator[None]:
    """Workers that answer nothing meanwhile, so that what is asked for waits in the gateway."""
    workers = alive(stack.served)
    for worker in workers:
        os.kill(worker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            os.kill(worker.pid, signal.SIGCONT)


def open_streams(stack: Stack) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.served.http_port}/metrics", timeout=5) as answer:
        found = re.search(r"^fount_open_streams (\S+)", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else -1


async def test_rows_of_clients_that_are_gone_or_late_never_reach_a_worker(whole: Stack) -> None:
    whole.traces.set_pace(0.01)
    started = time.time()
    async with sampling(whole.served.server) as stub:
        busy = [asyncio.create_task(draw(stub, 10_000_000, label=1, timeout_s=3)) for _ in range(4)]
        await asyncio.sleep(0.5)
        with stopped_workers(whole):
            await asyncio.sleep(0.3)  # every worker has the calls it may hold
            gone = [stub.Sample(sample_request(NAME, {"count": 5000, "seed": 1, "label": GONE})) for _ in range(20)]
            late = [draw(stub, 5000, label=LATE, timeout_s=0.3) for _ in range(20)]
            ends = {each.code for each in await asyncio.gather(*late)}
            for call in gone:
                call.cancel()
            await asyncio.sleep(0.2)
        assert {each.code for each in await asyncio.gather(*busy)} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert ends == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert whole.traces.rows(1, started) >= 1000
    assert (whole.traces.rows(GONE, started), whole.traces.rows(LATE, started)) == (0, 0)


async def test_a_late_client_gets_what_was_drawn_in_time(whole: Stack) -> None:
    async with sampling(whole.served.server) as stub:
        drawn = await draw(stub, 1_000_000, timeout_s=0.3)
    assert drawn.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert drawn.seconds < 1
    assert drawn.data
    assert whole.is_right(drawn)


async def vanish(stack: Stack, chance: random.Random) -> None:
    """Connect, ask for much, read a little, and be gone without a word, or with one."""
    async with sampling(stack.served.server) as stub:
        count, wait_s = chance.randrange(1, 20_000), chance.expovariate(4)
        call = stub.Sample(sample_request(NAME, {"count": count, "seed": SEED}))
        try:
            async with asyncio.timeout(wait_s):
                while (response := await call.read()) is not grpc.aio.EOF:
                    start = response.chunk.start_index * 1024
                    assert response.chunk.data == stack.truth[start : start + len(response.chunk.data)]
        except TimeoutError:
            if chance.random() < 0.5:
                call.cancel()  # else its connection is closed over its head


@pytest.mark.slow
async def test_five_hundred_clients_that_come_and_vanish_leave_the_gateway_working(whole: Stack) -> None:
    chance = random.Random(500)
    waiting = asyncio.Semaphore(100)

    async def one(delay_s: float, client: random.Random) -> None:
        await asyncio.sleep(delay_s)
        async with waiting:
            await vanish(whole, client)

    vanishing = [asyncio.create_task(one(4 * chance.random(), random.Random(k))) for k in range(500)]
    staying = await draw_many(whole.served.server, [500] * 8 + [1] * 100)
    async with asyncio.timeout(60):
        await asyncio.gather(*vanishing)
    assert whole.check(staying) == {OK: 108}
    async with asyncio.timeout(10):
        while open_streams(whole):
            await asyncio.sleep(0.1)
    assert whole.check(await draw_many(whole.served.server, [1] * 20)) == {OK: 20}
