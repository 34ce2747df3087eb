"""GetPlan and ListPlans: each caller gets their own plans, whole and in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from fount.v1 import augmentation_pb2 as pb
from fount.v1 import augmentation_pb2_grpc
from service.rpc.plan_store import FolderPlanStore
from tests.contract.augmenting import NamedCallers, augmenting_gateway, plan_request


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[augmentation_pb2_grpc.AugmentationServiceStub]:
    """A client of a gateway that keeps plans in a folder and names callers by their metadata."""
    async with augmenting_gateway(tmp_path, policy=NamedCallers(), plans=tmp_path / "plans") as running:
        yield augmentation_pb2_grpc.AugmentationServiceStub(running.channel)


def caller(name: str) -> dict[str, object]:
    return {"metadata": [("caller", name)], "timeout": 20}


async def plan(stub, text: str = "seed: 1", name: str = "ada") -> pb.Plan:
    return (await stub.PlanDataset(plan_request(text), **caller(name))).plan


async def list_plans(stub, name: str = "ada", **fields) -> tuple[list[str], str]:
    response = await stub.ListPlans(pb.ListPlansRequest(**fields), **caller(name))
    return [each.id for each in response.plans], response.next_page_token


async def test_a_plan_is_kept_for_its_caller_alone(stub) -> None:
    made = await plan(stub)
    assert (await stub.GetPlan(pb.GetPlanRequest(id=made.id), **caller("ada"))).plan == made
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.GetPlan(pb.GetPlanRequest(id=made.id), **caller("bob"))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_plans_are_listed_newest_first_in_pages(stub) -> None:
    made = [(await plan(stub, f"seed: {seed}")).id for seed in range(3)]
    first, token = await list_plans(stub, page_size=2)
    rest, end = await list_plans(stub, page_size=2, page_token=token)
    assert ([*first, *rest], end) == (made[::-1], "")
    assert await list_plans(stub, "bob") == ([], "")


@pytest.mark.parametrize(("fields", "field"), [({"page_size": -1}, "page_size"), ({"page_token": "?"}, "page_token")])
async def test_a_wrong_page_is_named(stub, fields, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await list_plans(stub, **fields)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details().startswith(f"{field}: ")


async def test_a_missing_id_is_named(stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="id: name a plan"):
        await stub.GetPlan(pb.GetPlanRequest(), **caller("ada"))


async def test_plans_larger_than_a_message_are_listed_in_pages(stub, tmp_path: Path) -> None:
    kept = FolderPlanStore(tmp_path / "plans")
    large = kept.get("ada", (await plan(stub)).id)
    for number in range(50):  # 3 MB
        large.id, large.ticket = f"{number:024x}", bytes(60_000)
        kept.put("ada", large)
    first, token = await list_plans(stub, page_size=1000)
    second, _ = await list_plans(stub, page_token=token)
    assert 0 < len(first) < 51
    assert len({*first, *second}) == len(first) + len(second)
