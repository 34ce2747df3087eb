"""Texts of the clients against the gateway itself, with in-memory workers."""

import asyncio

import pytest

from fount import Client, aio
from fount.errors import InvalidRequest, SampleFailed
from service.domain import ConditionKind
from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import serving

MANY = 300  # which need a stream


@pytest.fixture
async def running():
    async with serving(
        MemoryPool(models=[memory_model("verse", max_text_bytes=16, conditions=frozenset({ConditionKind.PREFIX}))])
    ) as running:
        running.pool.faults.texts = {0: "é. a".encode(), 1: b""}
        yield running


@pytest.fixture
async def client(running):
    async with aio.Client(f"127.0.0.1:{running.gateway.port}") as client:
        yield client


@pytest.mark.parametrize("count", [3, MANY], ids=["one message", "a stream"])
async def test_it_draws_texts_with_labels(client, count):
    samples = await client.sample("verse", count=count, seed=7, label=2)
    assert samples.texts[:2] == ("é. a", "")
    assert (samples.shape, samples.labels.tolist()) == ((count,), [2] * count)
    assert samples[2:].texts == (await client.sample("verse", count=count - 2, seed=7, start_index=2)).texts


async def test_the_synchronous_client_draws_the_same_texts(client, running):
    def draw():
        with Client(f"127.0.0.1:{running.gateway.port}") as other:
            streamed = [text for chunk in other.stream("verse", count=MANY, seed=7) for text in chunk.texts]
            return other.sample("verse", count=MANY, seed=7).texts, tuple(streamed)

    drawn, streamed = await asyncio.to_thread(draw)
    assert drawn == streamed == (await client.sample("verse", count=MANY, seed=7)).texts


async def test_stop_ends_texts(client):
    whole = await client.sample("verse", count=20, seed=7)
    ended = await client.sample("verse", count=20, seed=7, stop="a")
    assert ended.texts == tuple(text.partition("a")[0] for text in whole.texts)
    assert ended.texts != whole.texts


async def test_a_prefix_begins_every_text_and_stop_ends_it_after(client, running):
    running.pool.faults.texts = {}
    drawn = await client.sample("verse", count=20, seed=7, prefix="é a", stop="a")
    assert all(text.startswith("é a") and "a" not in text[3:] for text in drawn.texts)
    assert len(set(drawn.texts)) > 10


async def test_a_text_that_is_not_utf8_is_named_with_a_remedy(client, running):
    running.pool.faults.texts = {1: b"a\xffb"}
    with pytest.raises(SampleFailed, match=r"DATA_LOSS: the model drew bytes that are not UTF-8.*draw another index"):
        await client.sample("verse", count=3, seed=7)
    (chunk,) = [chunk async for chunk in client.stream("verse", count=3, seed=7)]
    assert ([error.index for error in chunk.errors], chunk.texts[1]) == ([1], "")


async def test_an_encoding_of_pictures_is_refused(client):
    with pytest.raises(InvalidRequest, match="the model cannot give FLOAT32; it gives UINT8"):
        await client.sample("verse", encoding="float32")


async def test_the_catalog_describes_texts(client):
    info = await client.model("verse")
    assert (info.modality, info.sample_shape, info.max_text_bytes, info.encodings) == ("text", (-1,), 16, ("uint8",))
    assert (info.conditions, info.prefix_unit) == (("prefix",), 1)
