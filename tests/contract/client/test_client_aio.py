"""The asyncio client against a real server that breaks when told."""

import asyncio
from contextlib import aclosing, asynccontextmanager

import grpc
import numpy as np
import pytest

from fount.client.aio import Client
from fount.errors import Cancelled, DeadlineExceeded, InvalidRequest, NotFound, ServerUnavailable
from fount.retry import RetryPolicy
from tests.contract.fake_gateway import Behaviour, FakeGateway, invalid, overloaded, pixels, rich, started, unavailable

QUICK = RetryPolicy(first_attempts=2, attempts=3, base_s=0.001)


@asynccontextmanager
async def client_of(gateway, timeout_s=10.0):
    async with started(gateway) as server, Client(server, timeout_s=timeout_s, retry=QUICK) as client:
        yield client


def expected(seed, start, count):
    return np.stack([pixels(seed, index) for index in range(start, start + count)])


async def test_samples_come_as_an_array():
    async with client_of(FakeGateway()) as client:
        samples = await client.sample("digits-cvae", label=7, count=6, seed=1)
    assert np.array_equal(samples, expected(1, 0, 6))
    assert samples.labels.tolist() == [7] * 6


async def test_a_broken_stream_is_resumed_where_it_broke():
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=2), Behaviour(status=overloaded(0.01))])
    async with client_of(gateway) as client:
        chunks = [chunk async for chunk in client.stream("digits-cvae", count=15, seed=3)]
    assert np.array_equal(np.concatenate(chunks), expected(3, 0, 15))
    assert [request.start_index for request in gateway.requests] == [0, 8, 8]


async def test_a_stream_that_falls_silent_is_given_up():
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    async with client_of(gateway, timeout_s=0.6) as client:
        chunks = client.stream("digits-cvae", count=8)
        assert (await anext(chunks)).start_index == 0
        with pytest.raises(DeadlineExceeded, match=r"within 0\.6 s"):
            await anext(chunks)


async def test_a_stream_may_take_longer_than_the_time_between_its_chunks():
    gateway = FakeGateway(attempts=[Behaviour(delay_s=0.25)])
    async with client_of(gateway, timeout_s=0.6) as client:
        assert len([chunk async for chunk in client.stream("digits-cvae", count=16)]) == 4


async def test_a_slow_reader_of_a_stream_is_not_given_up():
    async with client_of(FakeGateway(), timeout_s=0.5) as client:
        chunks = client.stream("digits-cvae", count=8)
        await anext(chunks)
        await asyncio.sleep(0.8)
        assert (await anext(chunks)).start_index == 4


async def test_a_whole_call_has_a_deadline():
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    async with client_of(gateway, timeout_s=0.6) as client:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.6 s"):
            await client.sample("digits-cvae", count=8)


async def test_closing_a_stream_cancels_the_call():
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    async with client_of(gateway) as client:
        async with aclosing(client.stream("digits-cvae", count=8)) as chunks:
            await anext(chunks)
        assert await asyncio.to_thread(gateway.cancelled.wait, 5)


async def test_cancelling_the_task_cancels_the_call():
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    async with client_of(gateway) as client:
        task = asyncio.create_task(client.sample("digits-cvae", count=8))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(gateway.cancelled.wait, 5)


async def test_a_call_the_server_cancelled_is_an_error_not_a_cancelled_task():
    gateway = FakeGateway(attempts=[Behaviour(status=rich(grpc.StatusCode.CANCELLED.value[0], "enough"))])
    async with client_of(gateway) as client:
        with pytest.raises(Cancelled, match="enough"):
            await client.sample("digits-cvae")


async def test_each_bad_field_is_told():
    gateway = FakeGateway(attempts=[Behaviour(status=invalid(count="is 0"))])
    async with client_of(gateway) as client:
        with pytest.raises(InvalidRequest) as refused:
            await client.sample("digits-cvae")
    assert refused.value.fields == [("count", "is 0")]


async def test_nobody_there_says_how_to_start_a_server():
    async with Client("127.0.0.1:1", retry=QUICK) as client:
        with pytest.raises(ServerUnavailable, match="fount serve"):
            await client.models()


async def test_models_are_listed_over_all_pages():
    gateway = FakeGateway()
    gateway.pages = [[gateway.model("a")], [gateway.model("b")]]
    async with client_of(gateway) as client:
        assert [info.name for info in await client.models()] == ["a", "b"]


async def test_an_unknown_model_is_not_found():
    async with client_of(FakeGateway()) as client:
        assert (await client.model("digits-cvae")).name == "digits-cvae"
        with pytest.raises(NotFound, match='no model "ghost"'):
            await client.model("ghost")
