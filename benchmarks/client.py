"""A client process, `python -m benchmarks.client`: it runs the loads of its standard input.

It sends requests to Fount through `fount.client.aio`, as users do, or through generated stubs, and to TorchServe
through its own gRPC; to the peers through HTTP.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

import grpc

from benchmarks.child import write_result
from benchmarks.loads import Load, Observations
from benchmarks.peers.http import HttpPool
from benchmarks.peers.servers import PEERS
from benchmarks.plan import MODEL
from benchmarks.request_body import body_of
from fount.client.aio import Client
from fount.retry import RetryPolicy
from fount.torchserve.v1 import torchserve_pb2
from fount.v1 import model_pb2, sampling_pb2, sampling_pb2_grpc

__all__ = ["main"]

_WHOLE = 256  # requests up to this size are received as one array
_CLASSES = 10
_MODEL_REF = model_pb2.ModelRef(name=MODEL)
_PREDICTIONS = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
_NO_RETRY = RetryPolicy(first_attempts=1, attempts=1)  # failures must be visible
_TIMEOUT_S = 120.0
_PAUSE_S = 0.4  # after a cancellation, until its work has ended


class _Server(Protocol):
    def draw(self, load: Load, index: int) -> AsyncGenerator[int, None]:
        """Request `load.count` samples from `index` on, and yield how many arrive each time."""
        ...

    async def image(self, seed: int, index: int) -> bytes:
        """Return the bytes of one sample, with the label of its index."""
        ...


def _body(load: Load, index: int) -> bytes:
    """Encode a request to another server than Fount, with the label of each index."""
    return body_of(load.seed, index, bytes(k % _CLASSES for k in range(index, index + load.count)))


class _Fount:
    def __init__(self, address: str) -> None:
        self._client = Client(address, timeout_s=_TIMEOUT_S, retry=_NO_RETRY)

    async def draw(self, load: Load, index: int) -> AsyncGenerator[int, None]:
        label = index % _CLASSES if load.count == 1 else None  # labels of larger requests are drawn from the prior
        if load.count <= _WHOLE:
            samples = await self._client.sample(
                MODEL, count=load.count, seed=load.seed, start_index=index, label=label, priority=load.priority
            )
            yield len(samples)
            return
        chunks = self._client.stream(
            MODEL, count=load.count, seed=load.seed, start_index=index, priority=load.priority
        )  # fmt: skip
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk.count

    async def image(self, seed: int, index: int) -> bytes:
        return (await self._client.sample(MODEL, seed=seed, start_index=index, label=index % _CLASSES)).tobytes()


class _BareFount:
    """Fount through generated stubs alone, without any checks, like the TorchServe client."""

    def __init__(self, address: str) -> None:
        self._stub = sampling_pb2_grpc.SamplingServiceStub(grpc.aio.insecure_channel(address))

    async def draw(self, load: Load, index: int) -> AsyncGenerator[int, None]:
        request = sampling_pb2.SampleRequest(
            model=_MODEL_REF, count=load.count, seed=load.seed, start_index=index, condition=_condition(index)
        )  # fmt: skip
        if load.count == 1:
            once = sampling_pb2.SampleOnceRequest(request=request)
            yield (await self._stub.SampleOnce(once, timeout=_TIMEOUT_S)).chunk.count
            return
        async for response in self._stub.Sample(request, timeout=_TIMEOUT_S):
            if response.chunk.count:
                yield response.chunk.count

    async def image(self, seed: int, index: int) -> bytes:
        request = sampling_pb2.SampleRequest(
            model=_MODEL_REF, count=1, seed=seed, start_index=index, condition=_condition(index)
        )  # fmt: skip
        return b"".join([response.chunk.data async for response in self._stub.Sample(request, timeout=_TIMEOUT_S)])


def _condition(index: int) -> sampling_pb2.Condition:
    return sampling_pb2.Condition(label=sampling_pb2.LabelRef(id=index % _CLASSES))


class _TorchServe:
    def __init__(self, address: str) -> None:
        self._predict: Any = grpc.aio.insecure_channel(address).unary_unary(
            _PREDICTIONS,
            request_serializer=torchserve_pb2.PredictionsRequest.SerializeToString,
            response_deserializer=torchserve_pb2.PredictionResponse.FromString,
        )

    async def draw(self, load: Load, index: int) -> AsyncGenerator[int, None]:
        await self._post(_body(load, index))
        yield load.count

    async def image(self, seed: int, index: int) -> bytes:
        return await self._post(body_of(seed, index, bytes([index % _CLASSES])))

    async def _post(self, body: bytes) -> bytes:
        request = torchserve_pb2.PredictionsRequest(model_name=MODEL, model_version="1.0", input={"body": body})
        response: torchserve_pb2.PredictionResponse = await self._predict(request, timeout=_TIMEOUT_S)
        return response.prediction


class _Peer:
    def __init__(self, name: str, address: str) -> None:
        host, _, port = address.partition(":")
        self._pool = HttpPool(host, int(port), PEERS[name].path)

    async def draw(self, load: Load, index: int) -> AsyncGenerator[int, None]:
        await self._pool.post(_body(load, index), _TIMEOUT_S)
        yield load.count

    async def image(self, seed: int, index: int) -> bytes:
        return await self._pool.post(body_of(seed, index, bytes([index % _CLASSES])), _TIMEOUT_S)


_KINDS: Mapping[str, Callable[[str], _Server]] = {
    "fount": _Fount, "grpc": _BareFount, "torchserve": _TorchServe, **{name: partial(_Peer, name) for name in PEERS}
}  # fmt: skip


class _Worker:
    """Runs loads, and keeps channels between them."""

    def __init__(self) -> None:
        self._servers: dict[str, _Server] = {}
        self._next_index: dict[int, int] = {}

    async def run(self, load: Load) -> Observations:
        kind, _, address = load.server.partition("://")
        if load.server not in self._servers:
            self._servers[load.server] = _KINDS[kind](address)
        server = self._servers[load.server]
        await asyncio.sleep(max(0.0, load.begin - time.monotonic()))
        match load.kind:
            case "loop":
                return await self._loop(server, load)
            case "paced":
                return await self._paced(server, load)
            case "first_chunks":
                return await self._first_chunks(server, load)
            case "stream":
                return await self._request(server, load)
            case "images":
                images = [await server.image(load.seed, index) for index in range(load.requests)]
                return Observations(images=b"".join(images).hex())

    def _take(self, load: Load) -> int:
        index = self._next_index.get(load.seed, 0)
        self._next_index[load.seed] = index + load.count
        return index

    async def _request(self, server: _Server, load: Load) -> Observations:
        arrivals: list[tuple[float, float, int]] = []
        await self._draw(server, load, arrivals)
        return Observations(requests=[(arrivals[0][0], arrivals[-1][1])], arrivals=arrivals)

    async def _draw(self, server: _Server, load: Load, arrivals: list[tuple[float, float, int]]) -> tuple[float, float]:
        start = before = time.monotonic()
        async for samples in server.draw(load, self._take(load)):
            at = time.monotonic()
            arrivals.append((before, at, samples))
            before = at
        return start, before

    async def _loop(self, server: _Server, load: Load) -> Observations:
        requests: list[tuple[float, float]] = []
        arrivals: list[tuple[float, float, int]] = []

        async def loop() -> None:
            while time.monotonic() < load.end:
                requests.append(await self._draw(server, load, arrivals))

        async with asyncio.TaskGroup() as loops:
            tasks = [loops.create_task(loop()) for _ in range(load.concurrency)]
            if load.cancels:
                await asyncio.sleep(max(0.0, load.end - time.monotonic()))
                for task in tasks:
                    task.cancel()
        return Observations(requests=requests, arrivals=arrivals)

    async def _paced(self, server: _Server, load: Load) -> Observations:
        """Send requests at fixed times, so that a slow response does not delay later requests."""
        arrivals: list[tuple[float, float, int]] = []

        async def request(due: float) -> tuple[float, float]:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            return due, (await self._draw(server, load, arrivals))[1]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(request(load.begin + k * load.every_s)) for k in range(load.requests)]
        return Observations(requests=[task.result() for task in tasks], arrivals=arrivals)

    async def _first_chunks(self, server: _Server, load: Load) -> Observations:
        whole = Load(kind="loop", server=load.server, count=_WHOLE, seed=load.seed)
        requests, firsts = [], []
        for _ in range(load.requests):
            requests.append(await self._draw(server, whole, []))
            start = time.monotonic()
            async with aclosing(server.draw(load, 0)) as chunks:
                await anext(chunks)
                firsts.append(time.monotonic() - start)
            await asyncio.sleep(_PAUSE_S)
        return Observations(requests=requests, firsts=firsts)


async def main() -> None:
    """Run the load of each input line, until the input ends."""
    worker = _Worker()
    write_result({"ready": True})
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            write_result(asdict(await worker.run(Load(**json.loads(line)))))
        except Exception as error:  # noqa: BLE001 - any error is reported to the parent, and ends the run
            inner = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            write_result({"error": f"{type(inner).__name__}: {inner}"})


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
