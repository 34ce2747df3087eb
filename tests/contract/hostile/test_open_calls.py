"""Calls that stay open: watches, idle streams, and one caller that takes as much as it can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fount.v1 import augmentation_pb2, augmentation_pb2_grpc, evaluation_pb2
from service.caller import Caller, CallerLimits
from service.workers.memory import MemoryPool
from tests.contract.augmenting import NamedCallers, augmenting_gateway
from tests.contract.evaluation_gateway import serve_evaluations
from tests.contract.gateways import Running, details, request, serving, serving_slowly
from tests.waiting import until

Check = health_pb2.HealthCheckRequest
CONFIG = augmentation_pb2.AugmentRequest(config=augmentation_pb2.AugmentConfig(height=4, width=4, channels=1))
WATCHES = 200


class Limited:
    """Names callers by their metadata; each may have two open calls of a kind."""

    def identify(self, peer, metadata) -> Caller:
        limits = CallerLimits(max_open_calls=2)
        return Caller(subject=str(dict(metadata).get("caller", "nobody")), grants=frozenset({"*"}), limits=limits)


@asynccontextmanager
async def watching(running: Running, count: int, *metadata: tuple[str, str]) -> AsyncIterator[None]:
    """Keep watches of the health open."""
    stub = health_pb2_grpc.HealthStub(running.channel)
    watches = [stub.Watch(Check(), metadata=metadata) for _ in range(count)]
    for each in watches:
        await each.read()
    yield
    for each in watches:
        each.cancel()


async def refusal(running: Running, *metadata: tuple[str, str]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await health_pb2_grpc.HealthStub(running.channel).Watch(Check(), metadata=metadata).read()
    return error.value


async def test_open_calls_of_a_kind_are_limited_with_a_time_to_retry(pool: MemoryPool) -> None:
    async with serving(pool, max_open_calls=3) as running:
        async with watching(running, 3):
            error = await refusal(running)
            retry = details(error, error_details_pb2.RetryInfo).retry_delay
            assert (error.code(), retry.seconds) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 1)
            assert error.details() == (
                "3 calls of Watch are open, which is this gateway's limit; end one, or try again in a moment"
            )
            _, chunks = await running.sample(request())  # other kinds are served
            assert len(chunks) == 1
        async with watching(running, 3):
            pass  # the calls that ended made room


async def test_a_caller_leaves_open_calls_to_others(pool: MemoryPool) -> None:
    async with serving(pool, Limited()) as running, watching(running, 2, ("caller", "ann")):
        error = await refusal(running, ("caller", "ann"))
        assert (error.code(), "ann has 2 calls of Watch open" in error.details()) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            True,
        )
        async with watching(running, 2, ("caller", "bob")):
            pass


async def test_refused_calls_are_counted_by_reason(pool: MemoryPool) -> None:
    async with serving(pool, max_open_calls=1) as running, watching(running, 1):
        await refusal(running)
        registry = running.gateway.metrics.registry
        assert registry.get_sample_value("fount_rejected_streams_total", {"reason": "calls"}) == 1.0


async def test_an_idle_stream_of_requests_is_ended_with_the_reason(tmp_path: Path) -> None:
    async with augmenting_gateway(tmp_path, idle_timeout_s=0.2) as running:
        stream = augmentation_pb2_grpc.AugmentationServiceStub(running.channel).Augment(timeout=20)
        await stream.write(CONFIG)
        assert (await stream.read()).HasField("header")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stream.read()
        assert (error.value.code(), error.value.details()) == (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "no request arrived within 0.2 s; send the next one earlier, or end the requests after the last",
        )


async def test_a_stream_that_keeps_sending_is_not_ended(tmp_path: Path) -> None:
    rows = augmentation_pb2.AugmentRequest(rows=augmentation_pb2.AugmentRows(count=1, data=bytes(16)))
    async with augmenting_gateway(tmp_path, idle_timeout_s=1.0) as running:
        stream = augmentation_pb2_grpc.AugmentationServiceStub(running.channel).Augment(timeout=20)
        await stream.write(CONFIG)
        for _ in range(5):  # longer than the timeout in all
            await stream.write(rows)
            await asyncio.sleep(0.3)
        await stream.done_writing()
        assert len([each async for each in stream]) > 1


async def test_watches_of_one_evaluation_share_a_read(tmp_path: Path) -> None:
    async with serve_evaluations(tmp_path) as served:
        created, reads, get, answered = await served.create(), 0, served.evaluations.get, asyncio.Event()

        async def read_slowly(subject: str, evaluation_id: str):
            nonlocal reads
            reads += 1
            await answered.wait()
            return await get(subject, evaluation_id)

        served.evaluations.get = read_slowly  # type: ignore[method-assign]
        query = evaluation_pb2.WatchEvaluationRequest(id=created.id)
        watches = [served.stub.WatchEvaluation(query, timeout=60) for _ in range(WATCHES)]
        first = [asyncio.ensure_future(each.read()) for each in watches]
        await until(lambda: reads > 0)
        await served.stub.ListEvaluations(evaluation_pb2.ListEvaluationsRequest())
        assert reads == 1
        answered.set()
        assert [each.evaluation.id for each in await asyncio.gather(*first)] == [created.id] * WATCHES
        for each in watches:
            each.cancel()


async def test_one_caller_does_not_fill_a_model_for_all(pool: MemoryPool) -> None:
    async with serving_slowly(pool, NamedCallers()) as running:
        stub, ann, bob = running.sampling, (("caller", "ann"),), (("caller", "bob"),)
        greedy = [stub.Sample(request(100_000, seed=seed), metadata=ann) for seed in range(24)]
        codes = [await _code_when_refused_or_begun(each) for each in greedy]
        assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
        begun = stub.Sample(request(16_000), metadata=bob, timeout=60)
        assert (await begun.read()).HasField("header")
        for each in (*greedy, begun):
            each.cancel()


async def _code_when_refused_or_begun(stream) -> grpc.StatusCode | None:
    try:
        await stream.read()
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None
