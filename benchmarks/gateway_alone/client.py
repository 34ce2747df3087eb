"""The client process: closed loops and streams, by the clients of Fount or by generated stubs.

Every line of input is the arguments of `_run`; its result is the number of requests, their bytes, and the CPU time of
this process.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from benchmarks.child import serve_commands
from fount.client import aio, sync
from fount.v1 import model_pb2, sampling_pb2, sampling_pb2_grpc

__all__ = ["COUNT_OF_CHUNK", "MODEL", "once_request", "stream_request"]

MODEL = "constant"
COUNT_OF_CHUNK = (1 << 20) // (28 * 28)  # samples of 784 bytes
_SEED = 7
_OPTIONS = [("grpc.max_receive_message_length", -1)]


def once_request() -> sampling_pb2.SampleOnceRequest:
    """Request one sample, whose label the gateway draws."""
    request = sampling_pb2.SampleRequest(model=model_pb2.ModelRef(name=MODEL), count=1, seed=_SEED, encoding=1)
    return sampling_pb2.SampleOnceRequest(request=request)


def stream_request(chunks: int) -> sampling_pb2.SampleRequest:
    """Request a stream of so many chunks of 1 MiB."""
    return sampling_pb2.SampleRequest(model=model_pb2.ModelRef(name=MODEL), count=chunks * COUNT_OF_CHUNK, seed=_SEED)


def _run(address: str, kind: str, seconds: float, loops: int = 1, chunks: int = 0) -> dict[str, Any]:
    if kind in ("sync stub", "sync client"):
        return _run_sync(address, seconds, with_stub=kind == "sync stub")
    return asyncio.run(_run_aio(address, kind, seconds, loops, chunks))


def _run_sync(address: str, seconds: float, *, with_stub: bool) -> dict[str, Any]:
    with grpc.insecure_channel(address) as channel, sync.Client(address) as client:
        stub, request = sampling_pb2_grpc.SamplingServiceStub(channel), once_request()

        def draw() -> object:
            return stub.SampleOnce(request, timeout=60) if with_stub else client.sample(MODEL, seed=_SEED)

        draw()
        latencies, start, cpu = [], time.monotonic(), time.process_time()
        before = start
        while before < start + seconds:
            draw()
            now = time.monotonic()
            latencies.append(now - before)
            before = now
        return _result(latencies, before - start, time.process_time() - cpu)


async def _run_aio(address: str, kind: str, seconds: float, loops: int, chunks: int) -> dict[str, Any]:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel, aio.Client(address) as client:
        stub, once, many = sampling_pb2_grpc.SamplingServiceStub(channel), once_request(), stream_request(chunks)

        async def once_by_stub() -> int:
            return len((await stub.SampleOnce(once, timeout=60)).chunk.data)

        async def once_by_client() -> int:
            return (await client.sample(MODEL, seed=_SEED)).nbytes

        async def stream_by_stub() -> int:
            return sum([len(each.chunk.data) async for each in stub.Sample(many)])

        async def stream_by_client() -> int:
            return sum([0 if each.samples is None else each.samples.nbytes async for each in client.stream(
                MODEL, seed=_SEED, count=many.count)])  # fmt: skip

        draws: dict[str, Callable[[], Awaitable[int]]] = {
            "stub": once_by_stub, "client": once_by_client,
            "stub stream": stream_by_stub, "client stream": stream_by_client,
        }  # fmt: skip
        draw, latencies, received = draws[kind], list[float](), 0
        await draw()

        async def loop(end: float) -> None:
            nonlocal received
            before = time.monotonic()
            while before < end:
                received += await draw()
                now = time.monotonic()
                latencies.append(now - before)
                before = now

        start, cpu = time.monotonic(), time.process_time()
        await asyncio.gather(*(loop(start + seconds) for _ in range(loops)))
        return _result(latencies, time.monotonic() - start, time.process_time() - cpu, received)


def _result(latencies: list[float], seconds: float, cpu_s: float, received: int = 0) -> dict[str, Any]:
    return {
        "requests": len(latencies), "bytes": received, "seconds": seconds, "cpu_s": cpu_s,
        "p50_s": statistics.median(latencies),
    }  # fmt: skip


if __name__ == "__main__":
    serve_commands(lambda command: _run(**command))
