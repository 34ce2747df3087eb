"""Plans, pulls and variants of the client against the gateway itself, with in-memory workers."""

import numpy as np
import pytest

from fount.client import aio
from fount.errors import InvalidRequest, NotFound
from tests.contract.augmenting import augmenting_gateway

SPEC = {
    "dataset": "small",
    "seed": 3,
    "target": {"balance": "largest"},
    "mix": {"transformed": 1},
    "policy": [{"rotate": [0, 15]}, {"shift": [0, 0.1], "probability": 0.5}],
    "shards": 3,
}


@pytest.fixture
async def client(tmp_path):
    async with (
        augmenting_gateway(tmp_path) as running,
        aio.Client(f"127.0.0.1:{running.gateway.port}", timeout_s=20) as client,
    ):
        yield client


async def rows_of(client, plan, **query):
    return [batch async for batch in client.pull(plan, **query)]


async def test_it_lists_data_sets(client):
    names = [each.name for each in await client.datasets()]
    assert "small" in names
    assert (await client.dataset("small")).splits[0].class_counts == (40, 20, 4)


async def test_it_plans_a_specification(client):
    plan = await client.plan(SPEC)
    assert plan.rows == 120
    assert {(slot.label, slot.source): slot.count for slot in plan.slots}[("two", "transformed")] == 36
    assert await client.get_plan(plan.id) == plan


async def test_it_pulls_the_same_rows_by_any_number_of_shards(client):
    plan = await client.plan(SPEC)
    whole = np.concatenate([batch.images for batch in await rows_of(client, plan, shards=1)])
    parts = [batch.images for shard in range(3) for batch in await rows_of(client, plan, shard=shard)]
    assert np.array_equal(whole, np.concatenate(parts))


async def test_it_reports_the_transforms_of_a_row(client):
    plan = await client.plan(SPEC)
    batch = (await rows_of(client, plan, shards=1, provenance="full"))[0]
    degrees = batch.transforms[:, batch.transform_columns.index("rotate_degrees")]
    assert np.isfinite(degrees[batch.sources == 3]).all()
    assert np.isnan(degrees[batch.sources == 1]).all()


async def test_it_augments_the_caller_s_rows(client):
    images = np.random.default_rng(0).integers(0, 255, (50, 4, 4, 1), dtype=np.uint8)
    whole = [batch async for batch in client.augment(images, list(range(50)), variants=3, seed=1)]
    split = [batch async for batch in client.augment((images[i : i + 7] for i in range(0, 50, 7)), variants=3, seed=1)]
    assert np.array_equal(*(np.concatenate([batch.images for batch in each]) for each in (whole, split)))
    assert np.concatenate([batch.labels for batch in whole]).tolist() == np.repeat(range(50), 3).tolist()


async def test_it_reports_what_the_gateway_refuses(client):
    with pytest.raises(NotFound, match="smal"):
        await client.plan({"dataset": "smal"})
    with pytest.raises(InvalidRequest, match="target"):
        await client.plan({"dataset": "small", "target": {"factor": -1}})
