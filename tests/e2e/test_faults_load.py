"""More work than there may be, and a stop in the middle of it: refusals are clear, and health stays up."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fount.errors import Overloaded
from fount.sampling.request import sample_request
from tests.e2e.faults import OK, TRUTH, Drawn, Stack, draw, draw_many, planted_stack, sampling
from tests.e2e.planted import NAME

FULL, GONE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE
QUEUE_S = 0.5
CLIENTS, SAMPLES = 40, 200  # about 3 s of work at a time, for one worker at this pace
PACE_S = 0.02
GONE_LABEL = 5
CALL_S = 0.2
"""How long a worker call may take: --bulk-batch-ms."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("load")


@pytest.fixture(scope="module")
def narrow(planted: Stack, planted_archives: Path, way: str, place: Path) -> Iterator[Stack]:
    """One slow worker, for which half a second of work may wait. The last quick test of it ends it."""
    options = ("--workers", "1", "--max-queue-s", str(QUEUE_S), "--drain", "20", way)
    with planted_stack(planted_archives, place, *options, pace_s=PACE_S, truth=planted.truth) as stack:
        yield stack


async def repeatedly(seconds: float, ask: Callable[[int], Awaitable[Drawn]]) -> list[Drawn]:
    """Ask, and ask again when the answer is there; when refused, wait as long as the refusal says."""
    ends, drawn = time.monotonic() + seconds, list[Drawn]()
    while time.monotonic() < ends:
        drawn.append(await ask(len(drawn)))
        error = drawn[-1].error
        await asyncio.sleep(min(error.retry_after_s or 0.0, 1.0) if isinstance(error, Overloaded) else 0)
    return drawn


async def check_health(server: str, seconds: float) -> list[float]:
    """Seconds that each check took; every one must say SERVING."""
    ends, took = time.monotonic() + seconds, list[float]()
    async with grpc.aio.insecure_channel(server) as channel:
        while time.monotonic() < ends:
            started = time.monotonic()
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            took.append(time.monotonic() - started)
            await asyncio.sleep(0.05)
    return took


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.slow)], ids="{}-s".format)
async def test_a_full_queue_refuses_in_words_while_health_stays_up(narrow: Stack, seconds: int) -> None:
    async with sampling(narrow.served.server) as stub:
        clients = [
            repeatedly(seconds, lambda turn, k=k: draw(stub, SAMPLES, (k * 499 + turn) % (TRUTH - SAMPLES)))
            for k in range(CLIENTS)
        ]
        took, *drawn = await asyncio.gather(check_health(narrow.served.server, seconds), *clients)
    requests = [each for one in drawn for each in one]
    ends = narrow.check(requests, FULL)
    refused = [each for each in requests if each.code is FULL]
    waits = [each.error.retry_after_s for each in refused if isinstance(each.error, Overloaded)]
    served = max(each.seconds for each in requests if each.code is OK)
    print(f"{ends[OK]} served, the slowest in {served:.2f} s; {ends[FULL]} refused, to come back after "  # noqa: T201
          f"{min(waits, default=0):.2f} to {max(waits, default=0):.2f} s; {len(took)} health checks, "
          f"the slowest {max(took) * 1000:.0f} ms")  # fmt: skip
    assert ends[OK] > 10
    assert ends[FULL] > CLIENTS / 2
    assert len(waits) == len(refused)
    assert all(0 < wait < 30 for wait in waits)
    assert max(each.seconds for each in refused) < 2
    assert max(took) < 1
    assert narrow.check([await asyncio.wait_for(one_more(narrow), 20)]) == {OK: 1}


async def one_more(stack: Stack) -> Drawn:
    """The result of a client that waits after refusals."""
    async with sampling(stack.served.server) as stub:
        while (drawn := await draw(stub, 1)).code is FULL:
            await asyncio.sleep(0.1)
        return drawn


async def test_a_cancel_takes_effect_by_the_end_of_the_calls_that_run(narrow: Stack) -> None:
    started = time.time()
    async with sampling(narrow.served.server) as stub:
        call = stub.Sample(sample_request(NAME, {"count": 1_000_000, "seed": 1, "label": GONE_LABEL}))
        await call.read()
        await call.read()
        call.cancel()
        cancelled = time.time()
        await asyncio.sleep(2)
    assert narrow.traces.rows(GONE_LABEL, started) > 0
    # A worker holds two calls: one runs, one was on its way.
    assert narrow.traces.rows(GONE_LABEL, cancelled + 2 * CALL_S + 0.3) == 0


@pytest.mark.slow
async def test_a_stop_under_load_ends_what_runs_and_refuses_what_comes(narrow: Stack) -> None:
    narrow.traces.set_pace(0.2)
    counts = [300] * 2 + [1] * 5
    running = asyncio.create_task(draw_many(narrow.served.server, counts))
    async with sampling(narrow.served.server) as stub:
        assert (await draw(stub, 1)).code is OK  # a connection from before the stop, as balancers keep
        narrow.served.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert not running.done()
        late = [await draw(stub, 1, timeout_s=5), *await draw_many(narrow.served.server, [1] * 5, timeout_s=5)]
    assert narrow.check(await running) == {OK: len(counts)}
    assert narrow.check(late, GONE) == {GONE: 6}
    assert await asyncio.to_thread(narrow.served.process.wait, 30) == 0


@pytest.mark.slow
async def test_after_a_kill_and_a_restart_the_same_addresses_give_the_same_bytes(
    planted_archives: Path, place: Path
) -> None:
    with planted_stack(planted_archives, place) as first:
        first.traces.set_pace(0)
        running = asyncio.create_task(draw_many(first.served.server, [5000] * 4))
        await asyncio.sleep(0.3)
        first.served.process.kill()
        assert first.check(await running, GONE).total() == 4
    with planted_stack(planted_archives, place, "--workers", "2") as second:
        assert second.truth == first.truth
        assert first.check(await draw_many(second.served.server, [1000] * 4 + [1] * 40)) == {OK: 44}
