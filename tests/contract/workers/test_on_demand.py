"""Models on demand: cold until a request needs them, stopped for others, and never while they are in use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from fount.v1 import latent_pb2, latent_pb2_grpc, model_pb2, sampling_pb2
from service.domain import ModelState
from service.errors import NotLoaded, NotReady, TooLate
from service.workers.torchserve import load_policy, loading, on_demand, replica
from service.workers.torchserve.channel import TorchServeChannel
from service.workers.torchserve.launch import TorchServeConfig
from service.workers.torchserve.on_demand import OnDemandPool
from service.workers.torchserve.process import TorchServeProcess
from tests.contract.fake_registry import FakeRegistry, archive, on_demand_pool, started
from tests.contract.fake_torchserve import running
from tests.contract.gateways import Running, details, serving
from tests.waiting import until

ARCHIVES = tuple(archive(name) for name in "abc")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probe often, and stop models that were just loaded."""
    monkeypatch.setattr(load_policy, "_STAY_S", 0.0)
    monkeypatch.setattr(loading, "_POLL_S", 0.01)
    monkeypatch.setattr(on_demand, "_LASTING_S", 0.1)
    monkeypatch.setattr(replica, "_FAST_PROBE_S", 0.01)
    monkeypatch.setattr(replica, "_SLOW_PROBE_S", 0.05)


@pytest.fixture
def fake() -> FakeRegistry:
    return FakeRegistry()


@asynccontextmanager
async def gateway(*fakes: FakeRegistry, **options) -> AsyncIterator[Running]:
    pool = on_demand_pool(*fakes, **({"archives": ARCHIVES, "models": 1} | options))
    async with serving(pool) as stack:
        yield stack


def request(name: str, count: int = 1) -> sampling_pb2.SampleRequest:
    return sampling_pb2.SampleRequest(model=model_pb2.ModelRef(name=name), count=count, seed=1)


async def states(stack: Running) -> dict[str, str]:
    listed = (await stack.models.ListModels(model_pb2.ListModelsRequest())).models
    return {each.ref.name: model_pb2.Model.State.Name(each.state) for each in listed}


def phases(pool: OnDemandPool) -> dict[str, str]:
    return {offer.name: offer.state.value for offer in pool.offers()}


async def test_a_gateway_is_ready_with_cold_models_alone(fake: FakeRegistry) -> None:
    async with gateway(fake) as stack:
        assert stack.gateway.why_not_ready() == ""
        assert await states(stack) == dict.fromkeys("abc", "STATE_COLD")
        assert fake.happened == []


async def test_a_cold_model_is_described_by_its_archive(fake: FakeRegistry) -> None:
    async with gateway(fake) as stack:
        asked = model_pb2.GetModelRequest(model=model_pb2.ModelRef(name="a"))
        model = (await stack.models.GetModel(asked)).model
        assert (model.ref.digest, list(model.sample_spec.dims), model.limits.max_count) == (
            "sha256:" + "a" * 64, [1, 2, 1], 100,
        )  # fmt: skip
        assert (model.state_reason, list(model.numerics)) == ("its workers start with the first request", [])


async def test_an_older_archive_is_described_once_it_was_loaded(fake: FakeRegistry) -> None:
    archives = (archive("a", described=False), archive("b"))
    async with started(on_demand_pool(fake, archives=archives, models=1)) as pool:
        assert next(offer.model for offer in pool.offers() if offer.name == "a") is None
        await asyncio.create_task(pool.load("a", "1"))
        await asyncio.create_task(pool.load("b", "1"))
        assert phases(pool) == {"a": "cold", "b": "ready"}
        assert next(offer.model for offer in pool.offers() if offer.name == "a").max_count == 100


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"name": 5}'], ids=["half", "deep nesting", "a wrong type"])
async def test_a_description_that_cannot_be_read_is_not_used(fake: FakeRegistry, text: str) -> None:
    damaged = archive("a")
    object.__setattr__(damaged, "description", text)
    async with started(on_demand_pool(fake, archives=(damaged,))) as pool:
        assert pool.offers()[0].model is None


async def test_a_request_starts_its_model(fake: FakeRegistry) -> None:
    async with gateway(fake) as stack:
        header, chunks = await stack.sample(request("a", count=3))
        assert (header.model.name, sum(chunk.count for chunk in chunks)) == ("a", 3)
        assert await states(stack) == {"a": "STATE_READY", "b": "STATE_COLD", "c": "STATE_COLD"}
        assert fake.happened == ["+a"]


async def test_a_stream_of_rows_starts_its_model(fake: FakeRegistry) -> None:
    async with gateway(fake) as stack:
        config = latent_pb2.EncodeConfig(model=model_pb2.ModelRef(name="a"))
        stream = latent_pb2_grpc.LatentServiceStub(stack.channel).Encode(
            iter([latent_pb2.EncodeRequest(config=config)]), timeout=20
        )
        assert [each.header.model.name async for each in stream] == ["a"]
        assert fake.happened == ["+a"]


async def test_a_wrong_request_starts_nothing(fake: FakeRegistry) -> None:
    async with gateway(fake) as stack:
        error = await stack.refused(request("a", count=101))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert fake.happened == []


async def test_a_model_gets_all_of_its_workers(fake: FakeRegistry) -> None:
    async with started(on_demand_pool(fake, archives=ARCHIVES, workers=3)) as pool:
        await asyncio.create_task(pool.load("a", "1"))
        assert {offer.name: offer.workers for offer in pool.offers()} == {"a": 3, "b": 0, "c": 0}


async def test_the_model_used_least_recently_is_stopped_for_another(fake: FakeRegistry) -> None:
    async with gateway(fake, models=2) as stack:
        for name in "abac":
            await stack.sample(request(name))
        assert fake.happened == ["+a", "+b", "-b", "+c"]
        assert stack.pool.processes[0].removed == ["b"]
        assert await states(stack) == {"a": "STATE_READY", "b": "STATE_COLD", "c": "STATE_READY"}


async def test_a_model_in_use_is_not_stopped(fake: FakeRegistry) -> None:
    async with gateway(fake) as stack:
        await stack.sample(request("a"))
        fake.stalled = asyncio.Event()
        first = asyncio.create_task(stack.sample(request("a")))
        await until(lambda: fake.running == 1)
        second = asyncio.create_task(stack.sample(request("b")))
        await asyncio.sleep(0.3)
        assert fake.happened == ["+a"]
        fake.stalled.set()
        await asyncio.gather(first, second)
        assert fake.happened == ["+a", "-a", "+b"]


async def test_many_requests_for_more_models_than_fit_all_succeed(fake: FakeRegistry) -> None:
    async with gateway(fake) as stack:
        fake.delay_s = 0.005

        async def client(name: str) -> None:
            for _ in range(20):
                await stack.sample(request(name))

        await asyncio.gather(*(client(name) for name in "abc" * 3))
        assert fake.predictions >= 20
        assert fake.most == 1


async def test_a_model_with_many_clients_does_not_keep_others_out(fake: FakeRegistry) -> None:
    async with gateway(fake) as stack:
        fake.delay_s = 0.05
        ended = asyncio.Event()

        async def busy() -> None:
            while not ended.is_set():
                await stack.sample(request("a"))

        clients = [asyncio.create_task(busy()) for _ in range(4)]
        await until(lambda: fake.predictions > 8)
        await stack.sample(request("b"))
        ended.set()
        await asyncio.gather(*clients)


async def test_only_so_many_models_start_at_once(fake: FakeRegistry) -> None:
    fake.starting.clear()
    async with gateway(fake, models=3, starting=2) as stack:
        drawn = [asyncio.create_task(stack.sample(request(name))) for name in "abc"]
        await until(lambda: len(fake.happened) == 2)
        await asyncio.sleep(0.1)
        assert sorted((await states(stack)).values()) == ["STATE_COLD", "STATE_LOADING", "STATE_LOADING"]
        fake.starting.set()
        await asyncio.gather(*drawn)


async def test_a_deadline_ends_the_wait(fake: FakeRegistry) -> None:
    fake.starting.clear()
    async with gateway(fake) as stack:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stack.sample(request("a"), timeout=0.3)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        fake.starting.set()
        await stack.sample(request("a"))
        assert fake.happened == ["+a"]


async def test_the_catalog_reports_a_model_that_was_not_loaded_in_time(fake: FakeRegistry) -> None:
    fake.starting.clear()
    async with gateway(fake) as stack:
        with pytest.raises(TooLate, match="a 1 was not loaded when the deadline passed"):
            await stack.gateway.catalog.load(NotLoaded("", model=("a", "1")), within_s=0.05)


async def test_a_model_that_does_not_start_is_unavailable_for_a_while(
    fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.broken = {"a"}
    async with gateway(fake) as stack:
        error = await stack.refused(request("a"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "a 1 is not loaded: golden samples differ by 9 levels" in error.details()
        assert 25 < details(error, error_details_pb2.RetryInfo).retry_delay.seconds < 31
        assert details(error, error_details_pb2.ErrorInfo).reason == "NOT_LOADED"
        assert await states(stack) == {"a": "STATE_UNAVAILABLE", "b": "STATE_COLD", "c": "STATE_COLD"}
        await stack.sample(request("b"))
        assert fake.happened == ["+a", "-a", "+b"]


async def test_a_model_that_did_not_start_is_tried_again(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_policy, "RETRY_S", 0.2)
    monkeypatch.setattr(loading, "RETRY_S", 0.2)
    fake.broken = {"a"}
    async with gateway(fake) as stack:
        await stack.refused(request("a"))
        assert "golden samples differ" in (await stack.refused(request("a"))).details()
        fake.broken = set()
        await until(lambda: phases(stack.pool)["a"] == "cold")
        await stack.sample(request("a"))


async def test_a_request_without_deadline_does_not_wait_for_ever(
    fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_STUCK_S", 0.3)
    async with started(on_demand_pool(fake, archives=ARCHIVES, models=1)) as pool:
        done = asyncio.Event()

        async def use() -> None:
            await pool.load("a", "1")
            await done.wait()

        user = asyncio.create_task(use())
        await until(lambda: phases(pool)["a"] == "ready")
        monkeypatch.setattr(load_policy, "_SHORT_USE_S", 0.0)
        with pytest.raises(NotLoaded, match="b 1 is not loaded: all that may be loaded at once are in use"):
            await asyncio.create_task(pool.load("b", "1"))
        done.set()
        await user


async def test_work_that_needs_several_models_may_exceed_the_limit(fake: FakeRegistry) -> None:
    async with started(on_demand_pool(fake, archives=ARCHIVES, models=1)) as pool:

        async def use() -> dict[str, str]:
            for name in "ab":
                await pool.load(name, "1")
            return phases(pool)

        assert await asyncio.create_task(use()) == {"a": "ready", "b": "ready", "c": "cold"}
        await until(lambda: fake.happened == ["+a", "+b", "-a"])


async def test_a_required_model_is_loaded_from_the_start_and_stays(fake: FakeRegistry) -> None:
    async with gateway(fake, required=("a",)) as stack:
        await until(lambda: phases(stack.pool)["a"] == "ready")
        waiting = asyncio.create_task(stack.sample(request("b")))
        await asyncio.sleep(0.3)
        assert fake.happened == ["+a"]
        waiting.cancel()


async def test_memory_of_workers_is_limited(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    async def measure(key: tuple[str, str]) -> int:
        return 1 << 30

    pool = on_demand_pool(fake, archives=ARCHIVES, memory_bytes=2 << 30)
    monkeypatch.setattr(pool, "_measure", measure)
    async with started(pool):
        for name in "abc":
            await asyncio.create_task(pool.load(name, "1"))
        assert fake.happened == ["+a", "+b", "-a", "+c"]


async def test_what_was_in_use_is_loaded_again_after_a_restart(fake: FakeRegistry) -> None:
    second = FakeRegistry()
    async with gateway(fake, second, models=3) as stack:
        await stack.sample(request("a"))
        await stack.sample(request("b"))
        fake.stalled = asyncio.Event()
        drawn = asyncio.create_task(stack.sample(request("a")))
        await until(lambda: fake.running == 1)
        await stack.pool.processes[0].stop()
        await drawn
        assert second.happened == ["+a"]
        assert await states(stack) == {"a": "STATE_READY", "b": "STATE_COLD", "c": "STATE_COLD"}


async def test_stopping_and_starting_is_no_crash(fake: FakeRegistry) -> None:
    async with gateway(fake) as stack:
        for name in "ab" * 5:
            await stack.sample(request(name))
        assert fake.happened.count("+a") == 5


async def test_the_default_version_is_another_one_before_it_is_unregistered(fake: FakeRegistry) -> None:
    fake.versions = ["1", "2"]
    async with running(fake) as address:
        channel = TorchServeChannel(address)
        await channel.register("a-1.mar", 1)
        await channel.unregister("a", "1")
        await channel.unregister("a", "9")
        await channel.close()
    assert fake.happened == ["+a", "default 2", "-a"]


async def test_what_torchserve_unpacked_is_removed(tmp_path: Path) -> None:
    for folder, name in (("x", "a"), ("y", "b"), ("z", None)):
        manifest = tmp_path / "tmp/models" / folder / "MAR-INF/MANIFEST.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(json.dumps({"model": {"modelName": name, "modelVersion": "1"}}) if name else "{")
    process = TorchServeProcess(TorchServeConfig(archives=tmp_path, state=tmp_path))
    await process.remove_unpacked("a", "1")
    process._folder = tmp_path
    await process.remove_unpacked("a", "1")
    assert sorted(each.name for each in (tmp_path / "tmp/models").iterdir()) == ["y", "z"]


async def test_loads_and_evictions_are_counted(fake: FakeRegistry) -> None:
    async with gateway(fake) as stack:
        for name in "aba":
            await stack.sample(request(name))
        value = stack.gateway.metrics.registry.get_sample_value
        assert value("fount_model_load_seconds_count", {"model": "a", "version": "1"}) == 2
        assert value("fount_model_evictions_total", {"model": "b", "version": "1"}) == 1
        await until(lambda: value("fount_models", {"state": "cold"}) == 2)
        assert value("fount_models", {"state": "ready"}) == 1


async def test_a_model_is_unavailable_when_torchserve_does_not_register_it(fake: FakeRegistry) -> None:
    async with started(on_demand_pool(fake, archives=ARCHIVES)) as pool:
        await asyncio.create_task(pool._channel.register("a-1.mar", 1))
        with pytest.raises(NotReady, match="TorchServe does not register its archive"):
            await asyncio.create_task(pool.load("a", "1"))
        assert await pool.load("unknown", "1") is False
        assert pool.offers()[0].state is ModelState.UNAVAILABLE
