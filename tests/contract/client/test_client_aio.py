"""The asyncio client against a real server that breaks as configured."""

import asyncio
from contextlib import aclosing

import grpc
import numpy as np
import pytest

import fount
from fount.client.aio import Client
from fount.errors import Cancelled, DeadlineExceeded, InvalidRequest, NotFound, ServerUnavailable
from tests.contract.fake_gateway import Behaviour, FakeGateway, invalid, overloaded, rich, unavailable


async def test_it_returns_samples_as_an_array(aio_client_of, expected):
    async with aio_client_of(FakeGateway()) as client:
        samples = await client.sample("digits-cvae", label=7, count=6, seed=1)
    assert np.array_equal(samples, expected(1, 0, 6))
    assert samples.labels.tolist() == [7] * 6


async def test_it_resumes_a_broken_stream(aio_client_of, expected):
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=2), Behaviour(status=overloaded(0.01))])
    async with aio_client_of(gateway) as client:
        chunks = [chunk async for chunk in client.stream("digits-cvae", count=15, seed=3)]
    assert np.array_equal(np.concatenate(chunks), expected(3, 0, 15))
    assert [request.start_index for request in gateway.requests] == [0, 8, 8]


async def test_it_gives_up_on_a_stream_that_stops_sending(aio_client_of):
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    async with aio_client_of(gateway, timeout_s=0.6) as client:
        chunks = client.stream("digits-cvae", count=8)
        assert (await anext(chunks)).start_index == 0
        with pytest.raises(DeadlineExceeded, match=r"within 0\.6 s"):
            await anext(chunks)


async def test_it_limits_the_time_between_chunks_and_not_of_the_stream(aio_client_of):
    gateway = FakeGateway(attempts=[Behaviour(delay_s=0.25)])
    async with aio_client_of(gateway, timeout_s=0.6) as client:
        assert len([chunk async for chunk in client.stream("digits-cvae", count=16)]) == 4


async def test_it_does_not_time_out_a_slow_reader(aio_client_of):
    async with aio_client_of(FakeGateway(), timeout_s=0.5) as client:
        chunks = client.stream("digits-cvae", count=8)
        await anext(chunks)
        await asyncio.sleep(0.8)
        assert (await anext(chunks)).start_index == 4


async def test_it_limits_the_time_of_a_whole_call(aio_client_of):
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    async with aio_client_of(gateway, timeout_s=0.6) as client:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.6 s"):
            await client.sample("digits-cvae", count=8)


async def test_it_cancels_the_call_when_a_stream_is_closed(aio_client_of):
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    async with aio_client_of(gateway) as client:
        async with aclosing(client.stream("digits-cvae", count=8)) as chunks:
            await anext(chunks)
        assert await asyncio.to_thread(gateway.cancelled.wait, 5)


async def test_it_cancels_the_call_when_the_task_is_cancelled(aio_client_of):
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    async with aio_client_of(gateway) as client:
        task = asyncio.create_task(client.sample("digits-cvae", count=8))
        async with asyncio.timeout(5):
            while not gateway.chunks_sent:
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(gateway.cancelled.wait, 5)


async def test_it_reports_a_call_that_the_server_cancelled_as_an_error(aio_client_of):
    gateway = FakeGateway(attempts=[Behaviour(status=rich(grpc.StatusCode.CANCELLED.value[0], "enough"))])
    async with aio_client_of(gateway) as client:
        with pytest.raises(Cancelled, match="enough"):
            await client.sample("digits-cvae")


async def test_it_reports_every_wrong_field(aio_client_of):
    gateway = FakeGateway(attempts=[Behaviour(status=invalid(count="is 0"))])
    async with aio_client_of(gateway) as client:
        with pytest.raises(InvalidRequest) as refused:
            await client.sample("digits-cvae")
    assert refused.value.fields == [("count", "is 0")]


async def test_it_reports_how_to_start_a_server_when_none_answers(quick):
    async with Client("127.0.0.1:1", retry=quick) as client:
        with pytest.raises(ServerUnavailable, match="fount serve"):
            await client.models()


async def test_it_lists_the_models_of_all_pages(aio_client_of):
    gateway = FakeGateway()
    gateway.pages = [[gateway.model("a")], [gateway.model("b")]]
    async with aio_client_of(gateway) as client:
        assert [info.name for info in await client.models()] == ["a", "b"]


async def test_it_reports_an_unknown_model(aio_client_of):
    async with aio_client_of(FakeGateway()) as client:
        assert (await client.model("digits-cvae")).name == "digits-cvae"
        with pytest.raises(NotFound, match='no model "ghost"'):
            await client.model("ghost")


def test_it_is_reachable_as_an_attribute_of_the_package():
    assert fount.aio.Client is Client
