"""A client process: `python -m benchmarks.client`, told loads by its input.

It asks Fount through `fount.client.aio`, as anybody would, or through generated stubs, and TorchServe through its
own gRPC
with as little as that takes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict
from typing import Any, Protocol

import grpc

from benchmarks.loads import Load, Seen
from benchmarks.plan import MODEL
from benchmarks.torchserve_body import body_of
from fount.client.aio import Client
from fount.retry import RetryPolicy
from fount.torchserve.v1 import torchserve_pb2
from fount.v1 import model_pb2, sampling_pb2, sampling_pb2_grpc

__all__ = ["main"]

_WHOLE = 256  # requests up to this size are asked for as one array
_CLASSES = 10
_MODEL_REF = model_pb2.ModelRef(name=MODEL)
_PREDICTIONS = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
_NO_RETRY = RetryPolicy(first_attempts=1, attempts=1)  # what fails must be seen
_TIMEOUT_S = 120.0
_PAUSE_S = 0.4  # after a cancel, until what still ran of it has ended


class _Server(Protocol):
    def draw(self, load: Load, index: int) -> AsyncGenerator[int, None]:
        """Ask for `load.count` samples from `index` on, and tell how many came each time."""
        ...

    async def image(self, seed: int, index: int) -> bytes:
        """The bytes of one sample, under the label of its index."""
        ...


def _digest(images: list[bytes]) -> str:
    return hashlib.sha256(b"".join(images)).hexdigest()


class _Fount:
    def __init__(self, address: str) -> None:
        self._client = Client(address, timeout_s=_TIMEOUT_S, retry=_NO_RETRY)

    async def draw(self, load: Load, index: int) -> AsyncGenerator[int, None]:
        label = index % _CLASSES if load.count == 1 else None  # larger requests draw theirs from the prior
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
    """Fount's contract through generated stubs alone: as lean as TorchServe is asked, and in no way checked."""

    def __init__(self, address: str) -> None:
        self._stub = sampling_pb2_grpc.SamplingServiceStub(grpc.aio.insecure_channel(address))

    async def draw(self, load: Load, index: int) -> AsyncGenerator[int, None]:
        request = sampling_pb2.SampleRequest(
            model=_MODEL_REF, count=load.count, seed=load.seed, start_index=index, condition=_condition(index)
        )  # fmt: skip
        if load.count == 1:
            asked = sampling_pb2.SampleOnceRequest(request=request)
            yield (await self._stub.SampleOnce(asked, timeout=_TIMEOUT_S)).chunk.count
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
        await self.image(load.seed, index)
        yield 1

    async def image(self, seed: int, index: int) -> bytes:
        body = body_of(seed, index, index % _CLASSES)
        request = torchserve_pb2.PredictionsRequest(model_name=MODEL, model_version="1.0", input={"body": body})
        answer: torchserve_pb2.PredictionResponse = await self._predict(request, timeout=_TIMEOUT_S)
        return answer.prediction


_KINDS: Mapping[str, Callable[[str], _Server]] = {"fount": _Fount, "grpc": _BareFount, "torchserve": _TorchServe}


class _Worker:
    """Does loads, and keeps channels from one to the next."""

    def __init__(self) -> None:
        self._servers: dict[str, _Server] = {}
        self._next_index: dict[int, int] = {}

    async def do(self, load: Load) -> Seen:
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
            case "digest":
                images = [await server.image(load.seed, index) for index in range(load.requests)]
                return Seen(digest=_digest(images))

    def _take(self, load: Load) -> int:
        index = self._next_index.get(load.seed, 0)
        self._next_index[load.seed] = index + load.count
        return index

    async def _request(self, server: _Server, load: Load) -> Seen:
        arrivals: list[tuple[float, float, int]] = []
        await self._ask(server, load, arrivals)
        return Seen(requests=[(arrivals[0][0], arrivals[-1][1])], arrivals=arrivals)

    async def _ask(self, server: _Server, load: Load, arrivals: list[tuple[float, float, int]]) -> tuple[float, float]:
        begun = before = time.monotonic()
        async for samples in server.draw(load, self._take(load)):
            at = time.monotonic()
            arrivals.append((before, at, samples))
            before = at
        return begun, before

    async def _loop(self, server: _Server, load: Load) -> Seen:
        requests: list[tuple[float, float]] = []
        arrivals: list[tuple[float, float, int]] = []

        async def loop() -> None:
            while time.monotonic() < load.end:
                requests.append(await self._ask(server, load, arrivals))

        async with asyncio.TaskGroup() as loops:
            tasks = [loops.create_task(loop()) for _ in range(load.concurrency)]
            if load.cancels:
                await asyncio.sleep(max(0.0, load.end - time.monotonic()))
                for task in tasks:
                    task.cancel()
        return Seen(requests=requests, arrivals=arrivals)

    async def _paced(self, server: _Server, load: Load) -> Seen:
        """Ask at fixed times: a slow answer does not hide from those that would have been asked meanwhile."""
        arrivals: list[tuple[float, float, int]] = []

        async def ask(due: float) -> tuple[float, float]:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            return due, (await self._ask(server, load, arrivals))[1]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(load.begin + k * load.every_s)) for k in range(load.requests)]
        return Seen(requests=[task.result() for task in tasks], arrivals=arrivals)

    async def _first_chunks(self, server: _Server, load: Load) -> Seen:
        whole = Load(kind="loop", server=load.server, count=_WHOLE, seed=load.seed)
        requests, firsts = [], []
        for _ in range(load.requests):
            requests.append(await self._ask(server, whole, []))
            begun = time.monotonic()
            async with aclosing(server.draw(load, 0)) as chunks:
                await anext(chunks)
                firsts.append(time.monotonic() - begun)
            await asyncio.sleep(_PAUSE_S)
        return Seen(requests=requests, firsts=firsts)


async def main() -> None:
    """Do what each line of the input says, until it ends."""
    worker = _Worker()
    _say({"ready": True})
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            _say(asdict(await worker.do(Load(**json.loads(line)))))
        except Exception as error:  # noqa: BLE001 - whatever a server answers is told to who asked, and ends the run
            _say({"error": _tell(error)})


def _tell(error: BaseException) -> str:
    inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
    return f"{type(inner).__name__}: {inner}"


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
