"""Proxies of the environment: nothing on this machine is reached through them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from fount import Client, aio
from fount.retry import RetryPolicy
from service.rpc.runner_client import RemoteWorkers
from tests.contract.evaluation_gateway import SHAPE, pinned, serve_evaluations
from tests.contract.fake_gateway import FakeGateway, serving
from tests.contract.fake_torchserve import (
    FakeTorchServe,
    FakeWorker,
    described_at,
    ready_target,
    sample_call,
    started_pool,
)
from tests.waiting import until

ONCE = RetryPolicy(first_attempts=1, attempts=1)
VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "GRPC_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that nobody answers at, in every variable that names one."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_a_client_reaches_a_server_on_this_machine() -> None:
    with serving(FakeGateway()) as server, Client(server, timeout_s=5, retry=ONCE) as client:
        assert client.models()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_asyncio_client_reaches_a_server_on_this_machine(host: str) -> None:
    with serving(FakeGateway()) as server:
        async with aio.Client(server.replace("127.0.0.1", host), timeout_s=5, retry=ONCE) as client:
            assert await client.models()


async def test_a_pool_reaches_torchserve_and_its_workers_on_this_machine() -> None:
    worker = FakeWorker()
    async with AsyncExitStack() as stack:
        port = await worker.start("127.0.0.1:0")
        stack.push_async_callback(worker.stop)
        torchserve = FakeTorchServe(pids=[11], described=described_at({11: f":{port}"}))
        pool = await stack.enter_async_context(started_pool(torchserve))
        await until(lambda: any(offer.target for offer in pool.offers()))
        await pool.call(sample_call(ready_target(pool)), timeout_s=5)
        assert (len(worker.requests), torchserve.predictions) == (1, 0)


async def test_a_runner_reaches_its_gateway_on_this_machine(tmp_path: Path) -> None:
    async with serve_evaluations(tmp_path) as served:
        workers = RemoteWorkers(served.server, retry=ONCE)
        rows = await workers.embed(pinned("reader"), np.zeros((2, *SHAPE), np.uint8))
        await workers.close()
    assert len(rows) == 2
