"""Clients that call while the workers of a model load: they wait within their timeout, and say so."""

import asyncio

import numpy as np
import pytest

from fount import Client, aio
from fount.errors import Loading
from fount.retry import RetryPolicy
from service.errors import Loading as ServiceLoading
from tests.contract.augmenting import augmenting_gateway
from tests.contract.commands import fount
from tests.contract.evaluation_gateway import serve_evaluations

LOADING_S = 0.2
IMAGES = np.zeros((2, 4, 4, 1), np.uint8)
SPEC = {
    "dataset": "small",
    "seed": 3,
    "target": {"factor": 2},
    "mix": {"synthesised": 1},
    "synthesis": {"model": "painter"},
}
WAITING = "painter 1 is not ready: workers are loading; waiting for up to 20 s"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Clients try again soon."""
    monkeypatch.setattr(ServiceLoading, "retry_after_s", 0.02)


def load(pool):
    """Let all workers of a pool load for a moment."""
    pool.set_up(up=False)
    asyncio.get_running_loop().call_later(LOADING_S, lambda: pool.set_up(up=True))


@pytest.fixture
async def running(tmp_path):
    async with augmenting_gateway(tmp_path) as running:
        yield running


@pytest.fixture
def server(running):
    return f"127.0.0.1:{running.gateway.port}"


@pytest.fixture
def waits():
    """What clients reported to wait for."""
    return []


@pytest.fixture
async def client(server, waits):
    async with aio.Client(server, timeout_s=20, retry=RetryPolicy(on_wait=waits.append)) as client:
        yield client


async def rows(stream):
    return sum([len(batch) async for batch in stream])


@pytest.mark.parametrize(
    ("call", "count"),
    [
        (lambda client: client.sample("painter", count=3, seed=1), 3),
        (lambda client: rows(client.stream("painter", count=100, seed=1)), 100),
        (lambda client: rows(client.augment(IMAGES, variants=2, seed=1)), 4),
    ],
    ids=["sample", "stream", "augment"],
)
async def test_samples_and_variants_wait_for_workers(client, running, waits, call, count):
    load(running.pool)
    found = await call(client)
    assert (found if isinstance(found, int) else len(found), len(waits)) == (count, 1)
    assert waits[0].endswith("is not ready: workers are loading; waiting for up to 20 s")


async def test_a_plan_and_its_rows_wait_for_workers(client, running, waits):
    load(running.pool)
    plan = await client.plan(SPEC)
    load(running.pool)
    assert await rows(client.pull(plan)) == plan.rows
    assert len(waits) == 2


async def test_an_evaluation_waits_for_workers(tmp_path, waits):
    retry = RetryPolicy(on_wait=waits.append)
    async with serve_evaluations(tmp_path) as served, aio.Client(served.server, timeout_s=20, retry=retry) as client:
        load(served.pool)
        assert (await client.evaluate("painter", count=100)).state == "queued"
    assert waits == [WAITING]


async def test_the_synchronous_client_waits_too(server, running, waits):
    def draw():
        with Client(server, timeout_s=20, retry=RetryPolicy(on_wait=waits.append)) as client:
            return len(client.sample("painter", count=3)), sum(map(len, client.stream("painter", count=100)))

    load(running.pool)
    assert await asyncio.to_thread(draw) == (3, 100)
    assert waits == [WAITING]


async def test_the_timeout_ends_the_wait_and_is_named(server, running):
    running.pool.set_up(up=False)
    async with aio.Client(server, timeout_s=2) as client:  # time enough for one answer on a busy machine
        with pytest.raises(Loading, match=r"workers are loading\. That did not change within 2 s; wait longer with"):
            await client.sample("painter", count=3)


async def test_a_name_that_no_worker_has_described_yet_is_waited_for(client, running, waits, monkeypatch):
    models, running.pool.models = running.pool.models, []
    monkeypatch.setattr(running.pool, "is_discovered", lambda: bool(running.pool.models))
    running.pool.set_up(up=True)  # reports the change

    def describe():
        running.pool.models = models
        running.pool.set_up(up=True)

    asyncio.get_running_loop().call_later(LOADING_S, describe)
    assert (await client.model("painter")).name == "painter"
    assert waits == ["not every worker has described its model yet; try again in a moment; waiting for up to 20 s"]


async def test_the_sample_command_waits_and_says_so_once(server, running, tmp_path):
    load(running.pool)
    out = tmp_path / "out.npz"
    result = await asyncio.to_thread(
        fount, "sample", "painter", "--count", "3", "--server", server, "--timeout", "20", "--out", str(out)
    )
    assert result.stderr == "painter:1 is loading; waiting for up to 20 s\n"
    assert result.exit_code == 0
    assert len(np.load(out)["samples"]) == 3
