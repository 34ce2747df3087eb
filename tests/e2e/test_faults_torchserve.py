"""TorchServe itself killed: the embedded one comes back by itself, and of two, the other goes on."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
import psutil
import pytest

from tests.e2e.faults import OK, Stack, draw, draw_many, draw_truth, sampling, until
from tests.e2e.planted import Traces
from tests.e2e.processes import gateway, torchserve

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def test_requests_outlive_an_embedded_torchserve_killed_in_the_middle_of_them(planted: Stack) -> None:
    planted.wait_until_ready()
    planted.traces.set_pace(0.05)
    counts = [1500] * 4 + [1] * 20
    requests = asyncio.create_task(draw_many(planted.served.server, counts, timeout_s=60))
    await asyncio.sleep(0.5)
    java, orphans = planted.served.java(), planted.served.workers()
    java.kill()
    started = time.monotonic()
    ends = planted.check(await requests, UNAVAILABLE)
    planted.traces.set_pace(0)
    await asyncio.to_thread(planted.wait_until_ready)
    print(f"ends {ends}, back after {time.monotonic() - started:.1f} s")  # noqa: T201
    assert planted.check(await draw_many(planted.served.server, counts)) == {OK: len(counts)}
    assert ends[OK] == len(counts)  # they waited: it restarts well within --worker-wait
    assert planted.served.java().pid != java.pid
    assert not psutil.wait_procs(orphans, timeout=5)[1]


@pytest.mark.slow
async def test_a_request_during_the_restart_waits_or_gets_unavailable(planted: Stack) -> None:
    planted.wait_until_ready()
    planted.served.java().kill()
    async with sampling(planted.served.server) as stub:
        drawn = await draw(stub, 16, timeout_s=40)
    await asyncio.to_thread(planted.wait_until_ready)
    assert planted.check([drawn], UNAVAILABLE).total() == 1
    if drawn.error:
        assert "ready worker" in str(drawn.error)


def listener(port: str) -> psutil.Process:
    """The process behind a port of this machine."""
    listening = psutil.net_connections("tcp")
    return psutil.Process(
        next(each.pid for each in listening if each.laddr.port == int(port) and each.status == psutil.CONN_LISTEN)
    )


@pytest.mark.slow
async def test_one_of_two_torchserves_killed_loses_no_request(planted_archives: Path, tmp_path: Path) -> None:
    traces = Traces(folder=tmp_path / "traces")
    traces.folder.mkdir()
    with ExitStack() as stack:
        places = [tmp_path / name for name in "ab"]
        for place in places:
            place.mkdir()
        addresses = [stack.enter_context(torchserve(planted_archives, place, traces.environment)) for place in places]
        served = stack.enter_context(gateway(tmp_path, *addresses))
        two = Stack(served=served, traces=traces, truth=b"")
        until(lambda: two.ready_workers() == 2, 60)
        two = Stack(served=served, traces=traces, truth=draw_truth(served))
        traces.set_pace(0.05)
        counts = [2000] * 6 + [1] * 40
        requests = asyncio.create_task(draw_many(served.server, counts))
        await asyncio.sleep(1.0)
        assert len({batch.pid for batch in traces.batches(time.time() - 1.0)}) == 2  # both were at it
        listener(addresses[0].partition(":")[2].partition("/")[0]).kill()
        assert two.check(await requests) == {OK: len(counts)}
        assert two.check(await draw_many(served.server, [1] * 20)) == {OK: 20}
        until(lambda: two.ready_workers() == 1, 10)
