"""Gateways over in-memory workers, and sampling requests to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fount.v1 import model_pb2, model_pb2_grpc, sampling_pb2, sampling_pb2_grpc
from service.caller import CallerPolicy
from service.config import GatewayConfig
from service.gateway import Gateway
from service.scheduler.scheduler import BatchingScheduler
from service.workers.memory import MemoryPool

TOY = model_pb2.ModelRef(name="toy")
INTERACTIVE = sampling_pb2.PRIORITY_INTERACTIVE
SAMPLE_S = 0.001


@dataclass
class Running:
    """A running gateway and stubs made from the protos alone."""

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
        """Read a whole stream: its header and its chunks."""
        responses = [each async for each in self.sampling.Sample(request, timeout=timeout)]
        return responses[0].header, [each.chunk for each in responses[1:]]

    async def refused(self, request: sampling_pb2.SampleRequest) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.sample(request)
        return error.value


@asynccontextmanager
async def serving(
    pool: MemoryPool, policy: CallerPolicy | None = None, config: GatewayConfig | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """Run a gateway on free ports, stopped at the end."""
    gateway = Gateway(pool, config or GatewayConfig(port=0, http_port=0, **settings), policy)
    await gateway.start()
    running = Running(gateway, pool, grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}"))
    try:
        await gateway.wait_ready(5)
        yield running
    finally:
        await running.channel.close()
        await gateway.stop(grace_s=0)


@asynccontextmanager
async def serving_slowly(
    pool: MemoryPool, policy: CallerPolicy | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """Run a gateway over workers that take a millisecond a sample, and report so."""
    pool.faults.sample_s = SAMPLE_S
    pool.batch_seconds = {1: SAMPLE_S, 64: 64 * SAMPLE_S}
    async with serving(pool, policy, **settings) as running:
        yield running


def is_idle(scheduler: BatchingScheduler) -> bool:
    """Whether no stream, no call and no sample remains."""
    idle = all(backlog.is_idle for backlog in scheduler._backlogs.values())
    return idle and not scheduler.open_streams and not scheduler.buffer.held


def request(count: int = 10, **fields: Any) -> sampling_pb2.SampleRequest:
    return sampling_pb2.SampleRequest(**({"model": TOY, "count": count, "seed": 7} | fields))


def pull(running: Running, count: int = 1_000_000, **fields: Any):
    """Open a stream without reading it."""
    return running.sampling.Sample(request(count, **fields))


def label(k: int) -> sampling_pb2.Condition:
    return sampling_pb2.Condition(label=sampling_pb2.LabelRef(id=k))


def data(chunks) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


def labels(chunks) -> list[int]:
    return [each for chunk in chunks for each in chunk.labels]


def details(error: grpc.aio.AioRpcError, kind):
    """Return the status detail of a kind; None if there is none."""
    status = rpc_status.from_call(error)
    for each in status.details:
        if each.Is(kind.DESCRIPTOR):
            found = kind()
            each.Unpack(found)
            return found
    return None


def fields(error: grpc.aio.AioRpcError) -> list[str]:
    """Return the fields of a BadRequest detail."""
    bad = details(error, error_details_pb2.BadRequest)
    return [each.field for each in bad.field_violations] if bad else []
