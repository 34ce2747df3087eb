"""The operator's interface: models, health, reflection, the side port and metrics."""

from __future__ import annotations

import asyncio

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from fount.v1 import model_pb2
from service import errors
from service.config import GatewayConfig
from service.errors import SetupError
from service.gateway import Gateway
from service.rpc.status import CODES
from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import Running, request, serving

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def get(running: Running, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{running.gateway.http_port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


SERVICES = [
    f"fount.v1.{name}Service"
    for name in ("Augmentation", "Dataset", "Evaluation", "Latent", "Model", "Sampling", "Scoring", "Translation")
]


async def check(running: Running, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(running.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_models_are_listed_with_their_state(running: Running) -> None:
    answer = await running.models.ListModels(model_pb2.ListModelsRequest())
    assert [(m.ref.name, m.state, list(m.numerics)) for m in answer.models] == [("toy", 2, ["memory"])]


async def test_models_are_listed_in_pages(config) -> None:
    async with serving(MemoryPool(models=[memory_model(f"m{k}") for k in range(5)])) as running:
        names, token = [], ""
        while True:
            page = await running.models.ListModels(model_pb2.ListModelsRequest(page_size=2, page_token=token))
            names += [model.ref.name for model in page.models]
            token = page.next_page_token
            if not token:
                break
        assert names == ["m0", "m1", "m2", "m3", "m4"]


@pytest.mark.parametrize(
    "bad",
    [model_pb2.ListModelsRequest(page_size=-1), model_pb2.ListModelsRequest(page_token="ü!"),
     model_pb2.ListModelsRequest(page_token="bm9uZSAx")],
    ids=["negative-size", "malformed-token", "foreign-token"],
)  # fmt: skip
async def test_an_invalid_page_is_an_error(running: Running, bad) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await running.models.ListModels(bad)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unknown_model_is_not_found(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await running.models.GetModel(model_pb2.GetModelRequest(model=model_pb2.ModelRef(name="tay")))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_follows_the_workers(running: Running) -> None:
    assert [await check(running), await check(running, "fount.v1.SamplingService")] == [SERVING, SERVING]
    running.pool.set_up(up=False)
    await get(running, "/livez")
    assert await check(running) == NOT_SERVING


async def test_health_changes_are_streamed(running: Running) -> None:
    stub = health_pb2_grpc.HealthStub(running.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    running.pool.set_up(up=False)
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()


async def test_health_of_an_unknown_service_is_not_found(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await check(running, "fount.v1.Nothing")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    async with asyncio.timeout(10):  # the call is counted after its client has the answer
        while 'grpc_code="NOT_FOUND",grpc_method="Check"' not in (await get(running, "/metrics"))[1]:
            await asyncio.sleep(0.01)


async def test_health_of_all_services_is_listed(running: Running) -> None:
    answer = await health_pb2_grpc.HealthStub(running.channel).List(health_pb2.HealthListRequest())
    assert {name: each.status for name, each in answer.statuses.items()} == dict.fromkeys(("", *SERVICES), SERVING)


async def test_liveness_does_not_depend_on_workers(running: Running) -> None:
    running.pool.set_up(up=False)
    assert (await get(running, "/livez"))[0] == 200
    assert (await get(running, "/readyz")) == (503, "toy 1: workers are loading\n")


async def test_a_required_model_keeps_the_gateway_unready() -> None:
    required = GatewayConfig(port=0, http_port=0, required_models=frozenset({"toy", "absent"}))
    gateway = Gateway(MemoryPool(), required)
    await gateway.start()
    with pytest.raises(SetupError, match="absent"):
        await gateway.wait_ready(0.05)
    await gateway.stop(grace_s=0)


async def test_workers_are_closed_also_when_another_part_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise OSError("the database is gone")

    gateway = Gateway(pool := MemoryPool(), GatewayConfig(port=0, http_port=0))
    await gateway.start()
    monkeypatch.setattr(gateway.evaluation, "close", fail)
    with pytest.raises(OSError, match="the database is gone"):
        await gateway.stop(grace_s=0)
    assert [offer.target for offer in pool.offers()] == [None]


async def test_reflection_lists_the_services(running: Running) -> None:
    channel = grpc.insecure_channel(f"127.0.0.1:{running.gateway.port}")
    services = await asyncio.to_thread(lambda: list(ProtoReflectionDescriptorDatabase(channel).get_services()))
    channel.close()
    assert {*SERVICES, "grpc.health.v1.Health"} <= set(services)


async def test_metrics_are_updated(running: Running) -> None:
    await running.sample(request(10))
    await running.refused(request(0))
    _, text = await get(running, "/metrics")
    rpc = 'grpc_method="Sample",grpc_service="fount.v1.SamplingService",grpc_type="server_stream"'
    for line in (
        'fount_samples_total{model="toy",version="1"} 10.0',
        f'grpc_server_handled_total{{grpc_code="OK",{rpc}}} 1.0',
        f'grpc_server_handled_total{{grpc_code="INVALID_ARGUMENT",{rpc}}} 1.0',
        'fount_batch_size_samples_sum{model="toy",version="1"} 10.0',
        'fount_queue_seconds_count{model="toy",version="1"} 1.0',
        'fount_model_ready{model="toy",version="1"} 1.0',
        "fount_ready 1.0",
        "fount_open_streams 0.0",
    ):
        assert line in text, line


async def test_an_error_for_a_port_in_use_contains_the_remedy(running: Running) -> None:
    for option, taken in (
        ("--port", GatewayConfig(port=running.gateway.port, http_port=0)),
        ("--http-port", GatewayConfig(port=0, http_port=running.gateway.http_port)),
    ):
        second = Gateway(MemoryPool(), taken)
        with pytest.raises(SetupError, match=f"choose another with {option}"):
            await second.start()
        await second.stop(grace_s=0)


def test_every_error_has_a_status() -> None:
    def tree(kind):
        return {kind}.union(*(tree(each) for each in kind.__subclasses__()))

    assert set(CODES) == tree(errors.FountServiceError) - {errors.FountServiceError}
