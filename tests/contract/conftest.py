"""A real gateway on a free port, with the in-memory workers behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
import pytest

from fount.v1 import model_pb2_grpc, sampling_pb2, sampling_pb2_grpc
from service.config import GatewayConfig
from service.gateway import Gateway
from service.workers.memory import MemoryPool


async def until(condition: Callable[[], object], timeout_s: float = 5) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def until_constant(value: Callable[[], int], quiet_s: float = 0.5) -> int:
    """Wait until a value has not changed for a while, and return it."""
    before = None
    while (now := value()) != before:
        before = now
        await asyncio.sleep(quiet_s)
    return now


@dataclass
class Running:
    """A running gateway and the stubs of a client that knows the protos alone."""

    gateway: Gateway
    pool: MemoryPool
    channel: grpc.aio.Channel

    @property
    def models(self) -> model_pb2_grpc.ModelServiceStub:
        return model_pb2_grpc.ModelServiceStub(self.channel)

    @property
    def sampling(self) -> sampling_pb2_grpc.SamplingServiceStub:
        return sampling_pb2_grpc.SamplingServiceStub(self.channel)

    async def sample(self, request: sampling_pb2.SampleRequest, timeout: float = 20):
        """The header and the chunks of a whole stream."""
        responses = [each async for each in self.sampling.Sample(request, timeout=timeout)]
        return responses[0].header, [each.chunk for each in responses[1:]]

    async def refused(self, request: sampling_pb2.SampleRequest) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.sample(request)
        return error.value


async def start_gateway(pool: MemoryPool, config: GatewayConfig) -> Running:
    gateway = Gateway(pool, config)
    await gateway.start()
    await gateway.wait_ready(5)
    return Running(gateway, pool, grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}"))


@pytest.fixture
def config() -> GatewayConfig:
    return GatewayConfig(port=0, http_port=0)


@pytest.fixture
def pool() -> MemoryPool:
    return MemoryPool()


@pytest.fixture
async def running(pool: MemoryPool, config: GatewayConfig) -> AsyncIterator[Running]:
    running = await start_gateway(pool, config)
    yield running
    await running.channel.close()
    await running.gateway.stop(grace_s=0)
