"""A plan made by one gateway is pulled from any gateway with its keys: the same rows, in any shards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format

from fount.readers.shapes import draw_shapes
from fount.v1 import augmentation_pb2, augmentation_pb2_grpc
from service.config import GatewayConfig
from service.gateway import Gateway
from tests.contract.augmenting import augmenting_pool, rows_of, small_settings

REQUEST = """
dataset: "small" seed: 5 target { factor: 3 } real { mode: MODE_BOOTSTRAP }
mix { resampled: 1 transformed: 1 synthesised: 1 } synthesis { model { name: "painter" } copy_quantile: 0.05 }
"""


@dataclass
class Served:
    """A gateway and a client's stub."""

    gateway: Gateway
    channel: grpc.aio.Channel

    @property
    def stub(self) -> augmentation_pb2_grpc.AugmentationServiceStub:
        return augmentation_pb2_grpc.AugmentationServiceStub(self.channel)

    async def plan(self) -> augmentation_pb2.Plan:
        request = text_format.Parse(REQUEST, augmentation_pb2.PlanDatasetRequest())
        return (await self.stub.PlanDataset(request, timeout=20)).plan

    async def rows(self, ticket: bytes, **fields) -> list:
        request = augmentation_pb2.PullDatasetRequest(ticket=ticket, **fields)
        responses = [each async for each in self.stub.PullDataset(request, timeout=20)]
        return rows_of(each.chunk for each in responses[1:])


async def start(folder: Path, keys: str = "keys") -> Served:
    config = GatewayConfig(
        port=0, http_port=0, datasets=(small_settings(folder),), ticket_keys=folder / keys, plans=folder / "plans"
    )
    gateway = Gateway(augmenting_pool(), config)
    await gateway.start()
    await gateway.wait_ready(5)
    return Served(gateway, grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}"))


async def stop(served: Served) -> None:
    await served.channel.close()
    await served.gateway.stop(grace_s=0)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    served = await start(tmp_path)
    yield served
    await stop(served)


async def test_rows_are_those_of_the_plan(served: Served) -> None:
    plan = await served.plan()
    rows = await served.rows(plan.ticket)
    counts: dict[tuple[int, int], int] = {}
    for row in rows:
        counts[row.label, row.source] = counts.get((row.label, row.source), 0) + 1
    assert [row.index for row in rows] == list(range(192))
    assert counts == {(each.label, each.source): each.count for each in plan.slots}


@pytest.mark.parametrize("shards", [3, 8])
async def test_shards_are_the_same_rows(served: Served, shards: int) -> None:
    ticket = (await served.plan()).ticket
    parts = [await served.rows(ticket, shard=shard, shards=shards) for shard in range(shards)]
    assert [row for part in parts for row in part] == await served.rows(ticket)


async def test_another_gateway_continues_where_one_ended(served: Served, tmp_path: Path) -> None:
    ticket = (await served.plan()).ticket
    whole = await served.rows(ticket)
    other = await start(tmp_path)
    assert await other.rows(ticket, start_index=77) == whole[77:]
    await stop(other)


async def test_another_gateway_shows_the_plan(served: Served, tmp_path: Path) -> None:
    plan = await served.plan()
    other = await start(tmp_path)
    got = await other.stub.GetPlan(augmentation_pb2.GetPlanRequest(id=plan.id))
    await stop(other)
    assert got.plan == plan


async def test_a_gateway_with_other_keys_refuses_the_ticket(served: Served, tmp_path: Path) -> None:
    ticket = (await served.plan()).ticket
    other = await start(tmp_path, keys="other-keys")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await other.rows(ticket)
    await stop(other)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "plan again" in error.value.details()


async def test_rows_out_of_bag_are_in_no_row_of_the_plan(served: Served) -> None:
    ticket = (await served.plan()).ticket
    used = {row.source_row for row in await served.rows(ticket)}
    left_out = {
        row.source_row for row in await served.rows(ticket, part=augmentation_pb2.PullDatasetRequest.PART_OUT_OF_BAG)
    }
    assert used.isdisjoint(left_out)
    assert len(left_out) > 10


async def test_an_unknown_data_set_is_not_found(served: Served) -> None:
    request = augmentation_pb2.PlanDatasetRequest(dataset="nowhere")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await served.stub.PlanDataset(request)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_rows_of_shapes_are_drawn_when_they_are_pulled(served: Served) -> None:
    request = augmentation_pb2.PlanDatasetRequest(dataset="shapes64", seed=5)
    plan = (await served.stub.PlanDataset(request, timeout=20)).plan
    call = served.stub.PullDataset(augmentation_pb2.PullDatasetRequest(ticket=plan.ticket), timeout=20)
    responses = [await call.read(), await call.read()]
    call.cancel()
    row = rows_of([responses[1].chunk])[0]
    pixels, factors = draw_shapes(row.source_row, 1)
    assert (plan.rows, row.label, row.image) == (20_000, factors.shape[0], pixels.tobytes())
