"""SampleOnce: the samples of a stream in one message, and the remaining ones as a stream."""

from __future__ import annotations

import asyncio
import io

import grpc
import numpy as np
import pytest
from PIL import Image

from fount import errors
from fount.client import aio
from fount.v1 import model_pb2, sampling_pb2
from service.config import GatewayConfig
from service.rpc.wire_format import frame_chunk
from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import Running, data, label, labels, request, serving


async def once(running: Running, *arguments, **fields) -> sampling_pb2.SampleOnceResponse:
    message = sampling_pb2.SampleOnceRequest(request=request(*arguments, **fields))
    return await running.sampling.SampleOnce(message, timeout=10)


async def test_it_returns_the_samples_of_a_stream(running: Running) -> None:
    header, chunks = await running.sample(request(10, start_index=5))
    answer = await once(running, 10, start_index=5)
    assert answer.header == header
    assert (answer.chunk.start_index, answer.chunk.count) == (5, 10)
    assert (answer.chunk.data, list(answer.chunk.labels)) == (data(chunks), labels(chunks))


@pytest.fixture
async def slow(config: GatewayConfig):
    """A gateway whose calls hold two samples each."""
    async with serving(MemoryPool(batch_seconds={1: 0.01})) as running:
        yield running


async def test_it_joins_the_samples_of_several_calls(slow: Running) -> None:
    _, chunks = await slow.sample(request(9))
    before = len(slow.pool.calls)
    answer = await once(slow, 9)
    assert len(slow.pool.calls) > before + 1
    assert (answer.chunk.data, list(answer.chunk.labels)) == (data(chunks), labels(chunks))


async def test_it_lists_failed_samples_of_several_calls(slow: Running) -> None:
    slow.pool.faults.bad_indices = frozenset({3, 7})
    answer = await once(slow, 10)
    assert [each.index for each in answer.chunk.errors] == [3, 7]


async def test_it_returns_at_most_256_samples(running: Running) -> None:
    answer = await once(running, 1000)
    assert answer.chunk.count == 256


@pytest.mark.parametrize(("side", "most"), [(100, (1 << 20) // 30_000), (1000, 0)], ids=["some", "not one"])
async def test_it_returns_at_most_a_mebibyte_and_the_client_streams_the_rest(config, side: int, most: int) -> None:
    async with serving(MemoryPool(models=[memory_model("toy", dims=(side, side, 3))])) as running:
        answer = await once(running, 50)
        assert (answer.header.seed, answer.HasField("chunk"), answer.chunk.count) == (7, most > 0, most)
        async with aio.Client(f"127.0.0.1:{running.gateway.port}") as client:
            samples = await client.sample("toy", count=most + 1, seed=7)
        assert samples.shape == (most + 1, side, side, 3)


async def test_png_images_are_files(running: Running) -> None:
    answer = await once(running, 3, encoding=model_pb2.ENCODING_PNG)
    assert len(answer.chunk.lengths) == 3
    assert Image.open(io.BytesIO(answer.chunk.data[: answer.chunk.lengths[0]])).size == (3, 2)


@pytest.mark.parametrize("dims", [(128, 128, 1), (64, 64, 3), (600, 600, 3)], ids=["grey", "colour", "one too large"])
async def test_incompressible_png_images_fit_one_message(config, dims: tuple[int, int, int]) -> None:
    async with serving(MemoryPool(models=[memory_model("toy", dims=dims)])) as running:
        answer = await once(running, 200, encoding=model_pb2.ENCODING_PNG)
        assert sum(answer.chunk.lengths) == len(answer.chunk.data) <= 1 << 20


async def test_a_client_that_is_closed_meanwhile_raises_cancelled(slow: Running) -> None:
    slow.pool.faults.delay_s = 1.0
    client = aio.Client(f"127.0.0.1:{slow.gateway.port}")
    task = asyncio.create_task(client.sample("toy", count=8))
    await asyncio.sleep(0.2)
    await client.close()
    with pytest.raises(errors.Cancelled):
        await task


async def test_wrong_fields_have_the_paths_of_a_sample_request(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await once(running, 0, condition=label(9))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "count: must be at least 1" in error.value.details()


async def test_an_empty_request_is_invalid(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await running.sampling.SampleOnce(sampling_pb2.SampleOnceRequest(), timeout=10)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("count", [1, 64, 65, 1000])
async def test_the_client_returns_the_same_samples_for_any_count(running: Running, count: int) -> None:
    _, chunks = await running.sample(request(count))
    async with aio.Client(f"127.0.0.1:{running.gateway.port}") as client:
        samples = await client.sample("toy", count=count, seed=7)
    assert samples.tobytes() == data(chunks)
    assert samples.labels is not None
    assert samples.labels.tolist() == labels(chunks)


async def test_the_client_draws_few_samples_without_a_stream(running: Running) -> None:
    async with aio.Client(f"127.0.0.1:{running.gateway.port}") as client:
        await client.sample("toy", count=8)
    value = running.gateway.metrics.registry.get_sample_value
    rpc = {"grpc_service": "fount.v1.SamplingService", "grpc_code": "OK"}
    assert value("grpc_server_handled_total", {"grpc_type": "unary", "grpc_method": "SampleOnce", **rpc}) == 1
    assert value("grpc_server_handled_total", {"grpc_type": "server_stream", "grpc_method": "Sample", **rpc}) is None


def test_a_framed_chunk_is_parsed_as_the_message() -> None:
    chunk = sampling_pb2.SampleChunk(start_index=2**60, count=3, labels=[1, 2, 300])
    framed = frame_chunk(chunk, bytes(range(256)) * 5)
    chunk.data = bytes(range(256)) * 5
    assert sampling_pb2.SampleResponse.FromString(framed) == sampling_pb2.SampleResponse(chunk=chunk)
    assert sampling_pb2.SampleOnceResponse.FromString(framed).chunk == chunk


def test_a_framed_chunk_may_be_empty() -> None:
    assert sampling_pb2.SampleResponse.FromString(frame_chunk(sampling_pb2.SampleChunk(), b"")).HasField("chunk")


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 1 << 20])
def test_a_framed_chunk_of_any_size_is_parsed(size: int) -> None:
    sent = np.arange(size, dtype=np.uint32).astype(np.uint8)
    chunk = sampling_pb2.SampleResponse.FromString(frame_chunk(sampling_pb2.SampleChunk(count=1), sent.data)).chunk
    assert (chunk.count, chunk.data) == (1, sent.tobytes())
