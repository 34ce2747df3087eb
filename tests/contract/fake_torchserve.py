"""A gRPC server with TorchServe's methods, whose answers a test chooses; and pools over such servers."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from fount.torchserve.v1 import torchserve_pb2
from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2, worker_pb2_grpc
from service.calls import Call, RangeItem
from service.domain import Dtype, Operation, Parameters, Target
from service.workers.torchserve.channel import Address
from service.workers.torchserve.pool import TorchServePool

DIGEST = "sha256:" + "a" * 64
NO_WORKER = (grpc.StatusCode.INTERNAL, 'Model "toy" has no worker to serve inference request.')


def description(
    state: int = model_pb2.Model.STATE_READY,
    numerics: str = "avx2",
    seconds: dict[int, float] | None = None,
    name: str = "toy",
) -> worker_pb2.WorkerReply:
    """The description of a worker of `toy` 1, or of another name; `seconds` by batch size."""
    model = model_pb2.Model(
        ref=model_pb2.ModelRef(name=name, version="1", digest=DIGEST),
        state=state,
        state_reason="" if state == model_pb2.Model.STATE_READY else "golden samples differ by 9 levels",
        operations=[model_pb2.OPERATION_SAMPLE, model_pb2.OPERATION_ENCODE],
        sample_spec=model_pb2.SampleSpec(dims=[1, 2, 1]),
        value_range=model_pb2.ValueRange(min=-1, max=1),
        encodings=[model_pb2.ENCODING_UINT8],
        limits=model_pb2.Limits(max_count=100, max_labels=100),
        latent_dim=2,
    )
    described = worker_pb2.Description(
        model=model, numerics=numerics, exec_batch_sizes=seconds or (), exec_batch_seconds=(seconds or {}).values()
    )
    return worker_pb2.WorkerReply(description=described)


def rows(count: int = 1) -> worker_pb2.WorkerReply:
    """A reply of one item with `count` rows."""
    value = worker_pb2.Tensor(dims=[count, 1, 2, 1], dtype=model_pb2.DTYPE_UINT8, data=bytes(2 * count))
    return worker_pb2.WorkerReply(items=[worker_pb2.WorkerOutcome(value=value)])


@dataclass
class FakeTorchServe:
    """Its answers, which a test may change at any time.

    Attributes:
        pids: of the workers that are ready.
        delay_s: how long a worker takes.
        queue: limit of calls that run or wait; None: unlimited.
        stalled: the next calls wait until it is set.
        describe_delay_s: how long a worker takes to describe itself.
        describe_refused: the error in place of a description.
        unresponsive: its management does not answer.
        requests: of all predictions that were started.
        descriptions: requested so far.
        running, max_running: predictions in progress, now and at most.
    """

    pids: list[int] = field(default_factory=lambda: [11])
    described: worker_pb2.WorkerReply = field(default_factory=description)
    reply: worker_pb2.WorkerReply | bytes | tuple[grpc.StatusCode, str] = field(default_factory=rows)
    delay_s: float = 0
    queue: int | None = None
    stalled: asyncio.Event | None = None
    describe_delay_s: float = 0
    describe_refused: tuple[grpc.StatusCode, str] | None = None
    unresponsive: bool = False
    requests: list[worker_pb2.WorkerRequest] = field(default_factory=list)
    descriptions: int = 0
    running: int = 0
    max_running: int = 0
    seen_metadata: list[tuple[str, str]] = field(default_factory=list)

    @property
    def predictions(self) -> int:
        return len(self.requests)

    async def predict(self, request: torchserve_pb2.PredictionsRequest, context) -> torchserve_pb2.PredictionResponse:
        self.seen_metadata = list(context.invocation_metadata())
        message = worker_pb2.WorkerRequest.FromString(request.input["body"])
        if message.operation == model_pb2.OPERATION_DESCRIBE:
            self.descriptions += 1
            await asyncio.sleep(self.describe_delay_s)
            if self.describe_refused:
                await context.abort(*self.describe_refused)
            return torchserve_pb2.PredictionResponse(prediction=self.described.SerializeToString())
        self.requests.append(message)
        if self.queue is not None and self.running >= self.queue:
            await context.abort(*NO_WORKER)
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await (self.stalled.wait() if self.stalled else asyncio.sleep(self.delay_s))
        finally:
            self.running -= 1
        if isinstance(self.reply, tuple):
            await context.abort(*self.reply)
        body = self.reply if isinstance(self.reply, bytes) else self.reply.SerializeToString()
        return torchserve_pb2.PredictionResponse(prediction=body)

    def management(self) -> dict[str, tuple[object, type]]:
        """Its management methods and their requests."""
        return {
            "ListModels": (self.list_models, torchserve_pb2.ListModelsRequest),
            "DescribeModel": (self.describe, torchserve_pb2.DescribeModelRequest),
        }

    async def list_models(self, request, context) -> torchserve_pb2.ManagementResponse:
        await self._wait_if_unresponsive()
        return torchserve_pb2.ManagementResponse(msg=json.dumps({"models": [{"modelName": "toy"}]}))

    async def describe(self, request, context) -> torchserve_pb2.ManagementResponse:
        await self._wait_if_unresponsive()
        workers = [{"pid": pid, "status": "READY"} for pid in self.pids]
        return torchserve_pb2.ManagementResponse(msg=json.dumps([{"modelVersion": "1", "workers": workers}]))

    async def _wait_if_unresponsive(self) -> None:
        while self.unresponsive:
            await asyncio.sleep(0.01)


def _unary(behave, request):
    return grpc.unary_unary_rpc_method_handler(
        behave, request_deserializer=request.FromString, response_serializer=lambda message: message.SerializeToString()
    )


@asynccontextmanager
async def running(fake: FakeTorchServe) -> AsyncIterator[Address]:
    """Serve it on a free port, as inference and as management."""
    server = grpc.aio.server()
    inference = {"Predictions": _unary(fake.predict, torchserve_pb2.PredictionsRequest)}
    management = {name: _unary(behave, request) for name, (behave, request) in fake.management().items()}
    handler = grpc.method_handlers_generic_handler
    server.add_generic_rpc_handlers((
        handler("org.pytorch.serve.grpc.inference.InferenceAPIsService", inference),
        handler("org.pytorch.serve.grpc.management.ManagementAPIsService", management),
    ))  # fmt: skip
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            tokens = Path(folder) / "key_file.json"
            tokens.write_text(json.dumps({"inference": {"key": "key"}, "management": {"key": "other"}}))
            yield Address(inference=f"127.0.0.1:{port}", management=f"127.0.0.1:{port}", token_file=tokens)
    finally:
        await server.stop(0)


class FakeWorker(worker_pb2_grpc.WorkerServiceServicer):
    """A worker process that serves direct calls, on a Unix socket or a TCP port.

    Attributes:
        stalled: calls wait until it is set; None: they do not.
        refusal: the status of every call; None: it is answered.
        requests: of the calls, without descriptions.
        cancelled: how many calls were cancelled.
    """

    def __init__(self) -> None:
        self.stalled: asyncio.Event | None = None
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.requests: list[worker_pb2.WorkerRequest] = []
        self.seen_metadata: list[tuple[str, str]] = []
        self.cancelled = 0
        self._server: grpc.aio.Server | None = None

    async def Execute(self, request, context):
        self.seen_metadata = list(context.invocation_metadata())
        if request.operation != model_pb2.OPERATION_DESCRIBE:
            self.requests.append(request)
        try:
            if self.stalled:
                await self.stalled.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.refusal:
            await context.abort(*self.refusal)
        return rows()

    async def start(self, address: str) -> int:
        """Listen; return the TCP port."""
        self._server = grpc.aio.server()
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(address)
        await self._server.start()
        return port

    async def stop(self) -> None:
        """End the connections at once."""
        if self._server:
            await self._server.stop(0)


def described_at(addresses: dict[int, str]) -> worker_pb2.WorkerReply:
    """A description with the addresses of worker processes."""
    reply = description()
    for pid, address in addresses.items():
        reply.description.processes.add(pid=pid, address=address)
    return reply


@asynccontextmanager
async def started_pool(*fakes: FakeTorchServe) -> AsyncIterator[TorchServePool]:
    """A started pool over fakes; stalled calls are released at the end."""
    async with AsyncExitStack() as stack:
        pool = TorchServePool([await stack.enter_async_context(running(fake)) for fake in fakes])
        await pool.start()
        try:
            yield pool
        finally:
            for fake in fakes:
                if fake.stalled:
                    fake.stalled.set()
            await pool.close()


def ready_target(pool: TorchServePool) -> Target:
    """The first target with a ready worker."""
    return next(offer.target for offer in pool.offers() if offer.target)


def sample_call(target: Target, cost_s: float | None = None) -> Call:
    """A call for one sample."""
    item = RangeItem(seed=1, start_index=0, count=1, labels=None, dtype=Dtype.UINT8)
    return Call(target=target, operation=Operation.SAMPLE, parameters=Parameters(), items=(item,), cost_s=cost_s)
