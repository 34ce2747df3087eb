"""The servers: a gateway over workers in its own process that take no time, and a bare `grpc.aio` server.

`python -m benchmarks.gateway_alone.servers gateway [CALL_S ROW_S]` or `... bare ADDRESS`, which first records the bytes
that the gateway at that address returns, and then returns them to every request it parses.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from benchmarks.child import write_result
from benchmarks.gateway_alone.client import COUNT_OF_CHUNK, MODEL, once_request, stream_request
from fount.v1 import sampling_pb2, sampling_pb2_grpc
from service.calls import Call, Reply, Rows
from service.config import GatewayConfig
from service.domain import Target
from service.gateway import Gateway
from service.workers import Offer
from service.workers.memory import MemoryPool, memory_model

__all__ = ["main"]

_DIMS = (28, 28, 1)
_MOST_ROWS = 1 << 14


@dataclass(kw_only=True)
class _ConstantPool(MemoryPool):
    """One worker whose rows are constant: a call takes `call_s`, and `row_s` a row while no other call runs."""

    call_s: float
    row_s: float
    constant: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros((_MOST_ROWS, *_DIMS), np.uint8))
    known: tuple[Offer, ...] = ()

    def set_up(self, *, up: bool) -> None:
        self.known = ()
        super().set_up(up=up)

    def offers(self) -> tuple[Offer, ...]:
        """Return the same offers each time, as TorchServe's pool does."""
        self.known = self.known or super().offers()
        return self.known

    def workers(self, target: Target) -> int:
        """Return 1."""
        return 1

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        compute_s = self.row_s * sum([item.count for item in call.items])
        if compute_s or self.call_s:
            self._in_flight[call.target] += 1
            await asyncio.sleep(self.call_s / 2)
            async with self._free.setdefault(call.target, asyncio.Semaphore(1)):
                await asyncio.sleep(compute_s)
            await asyncio.sleep(self.call_s / 2)
            self._in_flight[call.target] -= 1
        outcomes = tuple(Rows(array=self.constant[: item.count], failures={}) for item in call.items)
        return Reply(outcomes=outcomes, compute_s=compute_s)


async def _gateway(call_s: float, row_s: float) -> None:
    model = memory_model(MODEL, labels=tuple("0123456789"), dims=_DIMS)
    seconds = {1: row_s or 1e-6, 16: 16 * (row_s or 1e-6)}
    pool = _ConstantPool(models=[model], call_s=call_s, row_s=row_s, batch_seconds=seconds)
    gateway = Gateway(pool, GatewayConfig(port=0, http_port=0))
    await gateway.start()
    await gateway.wait_ready(10)
    await _serve_until_input_ends(gateway.port)
    await gateway.stop(grace_s=0)


class _Replay(sampling_pb2_grpc.SamplingServiceServicer):
    def __init__(self, once: bytes, header: bytes, chunk: bytes) -> None:
        self._once, self._header, self._chunk = once, header, chunk

    async def SampleOnce(self, request: sampling_pb2.SampleOnceRequest, context: object) -> bytes:  # type: ignore[override]  # noqa: N802
        return self._once

    async def Sample(self, request: sampling_pb2.SampleRequest, context: object) -> AsyncIterator[bytes]:  # type: ignore[override]  # noqa: N802
        yield self._header
        for _ in range(request.count // COUNT_OF_CHUNK):
            yield self._chunk


class _RawServer:
    """Registers the methods of a server without their serializers, since their answers are bytes."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Leave out the handlers by prefix, which duplicate the registered methods."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Register each method."""
        raw = {name: each._replace(response_serializer=None) for name, each in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, raw),))
        self._server.add_registered_method_handlers(service, raw)


async def _bare(address: str) -> None:
    path = "/fount.v1.SamplingService/"
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        once = channel.unary_unary(path + "SampleOnce")
        stream = channel.unary_stream(path + "Sample")
        answer = await once(once_request().SerializeToString())
        header, chunk = [each async for each in stream(stream_request(1).SerializeToString())]
    server = grpc.aio.server()
    sampling_pb2_grpc.add_SamplingServiceServicer_to_server(_Replay(answer, header, chunk), _RawServer(server))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await _serve_until_input_ends(port)
    await server.stop(0)


async def _serve_until_input_ends(port: int) -> None:
    write_result({"port": port})
    await asyncio.to_thread(sys.stdin.read)


def main(kind: str, *arguments: str) -> None:
    """Serve until the standard input ends."""
    asyncio.run(_bare(*arguments) if kind == "bare" else _gateway(*map(float, arguments or ("0", "0"))))


if __name__ == "__main__":
    main(*sys.argv[1:])
