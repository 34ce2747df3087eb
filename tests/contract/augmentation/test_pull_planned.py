"""Pull by a ticket that the gateway signed: who may, what a changed ticket gets, and what provenance identifies."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fount.v1 import augmentation_pb2 as pb
from fount.v1 import augmentation_pb2_grpc, model_pb2, sampling_pb2
from tests.contract.augmenting import NamedCallers, augmenting_gateway, rows_of

REQUEST = pb.PlanDatasetRequest(
    dataset="small",
    seed=11,
    target=pb.Target(balance_to_largest=True),
    mix=pb.Mix(transformed=1, synthesised=2),
    synthesis=pb.Synthesis(model=model_pb2.ModelRef(name="painter")),
    shards=3,
)


def stub(running) -> augmentation_pb2_grpc.AugmentationServiceStub:
    return augmentation_pb2_grpc.AugmentationServiceStub(running.channel)


async def plan(running) -> pb.Plan:
    return (await stub(running).PlanDataset(REQUEST, timeout=20)).plan


async def pull(running, ticket: bytes, **fields):
    request = pb.PullDatasetRequest(ticket=ticket, **fields)
    responses = [each async for each in stub(running).PullDataset(request, timeout=20)]
    return responses[0].header, rows_of([each.chunk for each in responses[1:]])


async def refused(running, ticket: bytes) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await pull(running, ticket)
    return error.value.code()


async def test_the_header_is_that_of_the_plan(tmp_path) -> None:
    async with augmenting_gateway(tmp_path) as running:
        planned = await plan(running)
        header, _ = await pull(running, planned.ticket, shard=1)
    assert (header.plan_id, header.rows, header.first_index) == (planned.id, planned.rows, 40)
    assert list(header.models) == list(planned.models)


async def test_a_synthesised_row_can_be_sampled_by_its_provenance(tmp_path) -> None:
    async with augmenting_gateway(tmp_path) as running:
        _, rows = await pull(running, (await plan(running)).ticket)
        row = next(row for row in rows if row.source == pb.SOURCE_SYNTHESISED)
        request = sampling_pb2.SampleRequest(
            model=model_pb2.ModelRef(name="painter"),
            count=1,
            start_index=row.address,
            seed=row.seed,
            condition=sampling_pb2.Condition(label=sampling_pb2.LabelRef(id=row.label)),
        )
        _, (chunk,) = await running.sample(request)
    assert chunk.data == row.image


async def test_a_ticket_with_any_byte_changed_is_refused(tmp_path) -> None:
    async with augmenting_gateway(tmp_path) as running:
        ticket = (await plan(running)).ticket
        for place in range(0, len(ticket), 29):
            forged = bytearray(ticket)
            forged[place] ^= 1
            assert await refused(running, bytes(forged)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_another_caller_s_ticket_is_refused(tmp_path) -> None:
    async with augmenting_gateway(tmp_path, policy=NamedCallers()) as running:
        ticket = (await plan(running)).ticket
        call = stub(running).PullDataset(pb.PullDatasetRequest(ticket=ticket), metadata=[("caller", "thief")])
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("left", ["dataset:small", "sample:painter"], ids=["no generator", "no data set"])
async def test_grants_are_checked_again_when_rows_are_pulled(tmp_path, left: str) -> None:
    policy = NamedCallers()
    async with augmenting_gateway(tmp_path, policy=policy) as running:
        ticket = (await plan(running)).ticket
        policy.grants = frozenset({left})
        assert await refused(running, ticket) is grpc.StatusCode.PERMISSION_DENIED


async def test_health_reports_the_service(tmp_path) -> None:
    async with augmenting_gateway(tmp_path) as running:
        request = health_pb2.HealthCheckRequest(service="fount.v1.AugmentationService")
        answer = await health_pb2_grpc.HealthStub(running.channel).Check(request, timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_service(tmp_path) -> None:
    async with augmenting_gateway(tmp_path) as running:
        requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
        reflecting = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        (answer,) = [each async for each in reflecting.ServerReflectionInfo(iter(requests), timeout=5)]
    assert "fount.v1.AugmentationService" in [each.name for each in answer.list_services_response.service]
