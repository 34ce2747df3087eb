"""A TorchServe whose models are registered and unregistered, and a pool that loads them on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
from google.protobuf import json_format

from fount.archive import ArchiveInfo
from fount.torchserve.v1 import torchserve_pb2
from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.workers.torchserve.channel import Address
from service.workers.torchserve.launch import TorchServeConfig
from service.workers.torchserve.load_policy import LoadLimits
from service.workers.torchserve.on_demand import OnDemandPool
from tests.contract.fake_torchserve import DIGEST, FakeTorchServe, description, rows, running

_PIDS = count(1_000_000_000)  # of no process


@dataclass
class FakeRegistry(FakeTorchServe):
    """TorchServe's answers about registered models; a registered one has workers once `starting` is set.

    Attributes:
        starting: set: workers start at once.
        broken: names of models whose workers cannot serve.
        happened: what was registered and unregistered, in order.
        most: how many models were registered at the same time.
        versions: of every model.
    """

    starting: asyncio.Event = field(default_factory=asyncio.Event)
    broken: set[str] = field(default_factory=set)
    happened: list[str] = field(default_factory=list)
    most: int = 0
    versions: list[str] = field(default_factory=lambda: ["1"])
    _registered: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.starting.set()

    def management(self) -> dict[str, tuple[object, type]]:
        return super().management() | {
            "RegisterModel": (self.register, torchserve_pb2.RegisterModelRequest),
            "UnregisterModel": (self.unregister, torchserve_pb2.UnregisterModelRequest),
            "SetDefault": (self.set_default, torchserve_pb2.SetDefaultRequest),
        }

    async def register(self, request, context) -> torchserve_pb2.ManagementResponse:
        name = request.url.removesuffix("-1.mar")
        if name in self._registered:
            await context.abort(grpc.StatusCode.UNKNOWN, "")
        self.happened.append(f"+{name}")
        self._registered[name] = [next(_PIDS) for _ in range(request.initial_workers)]
        self.most = max(self.most, len(self._registered))
        return torchserve_pb2.ManagementResponse(msg="Processing worker updates...")

    async def unregister(self, request, context) -> torchserve_pb2.ManagementResponse:
        if request.model_name not in self._registered:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Model not found: {request.model_name}")
        self.happened.append(f"-{request.model_name}")
        del self._registered[request.model_name]
        return torchserve_pb2.ManagementResponse(msg="unregistered")

    async def set_default(self, request, context) -> torchserve_pb2.ManagementResponse:
        self.happened.append(f"default {request.model_version}")
        return torchserve_pb2.ManagementResponse(msg="Default version successfully updated")

    async def list_models(self, request, context) -> torchserve_pb2.ManagementResponse:
        models = [{"modelName": name} for name in self._registered]
        return torchserve_pb2.ManagementResponse(msg=json.dumps({"models": models}))

    async def describe(self, request, context) -> torchserve_pb2.ManagementResponse:
        pids = self._registered.get(request.model_name)
        if pids is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Model not found: {request.model_name}")
        ready = pids if self.starting.is_set() else []
        workers = [{"pid": pid, "status": "READY"} for pid in ready]
        described = [{"modelVersion": version, "workers": workers} for version in self.versions]
        return torchserve_pb2.ManagementResponse(msg=json.dumps(described))

    async def predict(self, request: torchserve_pb2.PredictionsRequest, context) -> torchserve_pb2.PredictionResponse:
        name = request.model_name
        if name not in self._registered:
            await context.abort(grpc.StatusCode.INTERNAL, f"Model not found: {name}")
        answer = await super().predict(request, context)
        message = worker_pb2.WorkerRequest.FromString(request.input["body"])
        reply = worker_pb2.WorkerReply(items=[rows(each.range.count).items[0] for each in message.items])
        if message.operation == model_pb2.OPERATION_DESCRIBE:
            reply = description(name=name)
            if name in self.broken:
                reply = description(model_pb2.Model.STATE_UNAVAILABLE, name=name)
        answer.prediction = reply.SerializeToString()
        return answer


@dataclass
class FakeProcess:
    """A process that serves one fake after another."""

    fakes: list[FakeRegistry]
    launch: Any
    is_running: bool = False
    removed: list[str] = field(default_factory=list)
    _serving: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> Address:
        address = await self._serving.enter_async_context(running(self.fakes.pop(0)))
        self.is_running = True
        return address

    async def stop(self, grace_s: float = 10) -> None:
        self.is_running = False
        serving, self._serving = self._serving, AsyncExitStack()
        await serving.aclose()

    async def remove_unpacked(self, name: str, version: str) -> None:
        self.removed.append(name)

    def log_tail(self) -> str:
        return ""


def archive(name: str, *, described: bool = True) -> ArchiveInfo:
    """An archive of a model with version 1."""
    model = description(name=name).description.model
    text = json_format.MessageToJson(model) if described else ""
    return ArchiveInfo(
        name=name, version="1", model_digest=DIGEST, archive_digest="", size_bytes=0, description=text
    )  # fmt: skip


def on_demand_pool(
    *fakes: FakeRegistry, archives: tuple[ArchiveInfo, ...], workers: int = 1, required: tuple[str, ...] = (), **limits
) -> OnDemandPool:
    """A pool that loads these archives by a process that serves one fake after another."""
    launch = SimpleNamespace(
        archives={Path(f"{each.name}-1.mar"): each for each in archives},
        workers={each.name: workers for each in archives},
        refused={},
    )
    config = TorchServeConfig(archives=Path(), state=Path(), on_demand=True)
    pool = OnDemandPool(config, LoadLimits(**limits), required=frozenset(required))
    pool.processes = [FakeProcess(list(fakes), launch)]
    return pool


@asynccontextmanager
async def started(pool: OnDemandPool) -> AsyncIterator[OnDemandPool]:
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()
