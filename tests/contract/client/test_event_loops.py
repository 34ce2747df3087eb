"""An asyncio client that is used in several event loops."""

import asyncio
import threading

import numpy as np
import pytest

from fount.client.aio import Client
from fount.errors import Cancelled
from tests.contract.fake_gateway import FakeGateway, serving


@pytest.fixture
def server():
    with serving(FakeGateway()) as server:
        yield server


async def drawn(client):
    few = await client.sample("digits-cvae", count=3, seed=1)
    many = [chunk async for chunk in client.stream("digits-cvae", count=3, seed=1)]
    assert np.array_equal(np.concatenate(many), few)
    return np.asarray(few)


def test_it_may_be_made_before_there_is_a_loop(server, expected):
    client = Client(server)
    assert np.array_equal(asyncio.run(drawn(client)), expected(1, 0, 3))


def test_it_is_used_in_one_loop_after_another(server, expected):
    client = Client(server)
    for _ in range(3):
        assert np.array_equal(asyncio.run(drawn(client)), expected(1, 0, 3))


def test_it_is_used_after_a_loop_that_was_left_open(server, expected):
    client, first = Client(server), asyncio.new_event_loop()
    first.run_until_complete(drawn(client))
    assert np.array_equal(asyncio.run(drawn(client)), expected(1, 0, 3))
    first.close()


@pytest.fixture
def other_loop():
    """A loop that runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def test_it_refuses_a_second_loop_while_the_first_runs(server, other_loop):
    client = Client(server)
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(drawn(client), other_loop))
    with pytest.raises(RuntimeError, match="in use in another event loop; make a client in each event loop"):
        await client.models()
    await client.close()


async def test_it_refuses_calls_after_it_was_closed(server):
    client = Client(server)
    await client.models()
    await client.close()
    with pytest.raises(Cancelled, match="The client was closed"):
        await client.models()
