"""A gRPC server that speaks as TorchServe does, with answers a test chooses."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from fount.torchserve.v1 import torchserve_pb2
from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.workers.torchserve.channel import Address

DIGEST = "sha256:" + "a" * 64
NO_WORKER = (grpc.StatusCode.INTERNAL, 'Model "toy" has no worker to serve inference request.')


def description(
    state: int = model_pb2.Model.STATE_READY, numerics: str = "avx2", seconds: dict[int, float] | None = None
) -> worker_pb2.WorkerReply:
    """What a worker of `toy` 1 says of itself; `seconds` by batch size."""
    model = model_pb2.Model(
        ref=model_pb2.ModelRef(name="toy", version="1", digest=DIGEST),
        state=state,
        state_reason="" if state == model_pb2.Model.STATE_READY else "golden samples differ by 9 levels",
        operations=[model_pb2.OPERATION_SAMPLE],
        sample_spec=model_pb2.SampleSpec(dims=[1, 2, 1]),
        value_range=model_pb2.ValueRange(min=-1, max=1),
        encodings=[model_pb2.ENCODING_UINT8],
        limits=model_pb2.Limits(max_count=100, max_labels=100),
    )
    told = worker_pb2.Description(
        model=model, numerics=numerics, exec_batch_sizes=seconds or (), exec_batch_seconds=(seconds or {}).values()
    )
    return worker_pb2.WorkerReply(description=told)


def rows(count: int = 1) -> worker_pb2.WorkerReply:
    """A reply of one item with `count` rows."""
    value = worker_pb2.Tensor(dims=[count, 1, 2, 1], dtype=model_pb2.DTYPE_UINT8, data=bytes(2 * count))
    return worker_pb2.WorkerReply(items=[worker_pb2.WorkerOutcome(value=value)])


@dataclass
class FakeTorchServe:
    """Its answers, changed at will.

    Attributes:
        pids: of the workers that are ready.
        delay_s: how long a worker takes.
        queue: most calls that run or wait; None is any number.
        stalled: the next calls that are begun wait until it is set.
        describe_delay_s: how long a worker takes to describe itself.
        describe_refused: what is answered in place of a description.
        silent: its management keeps callers waiting.
        asked: what each prediction begun asked for.
        running, most_running: predictions under way, now and at most.
    """

    pids: list[int] = field(default_factory=lambda: [11])
    described: worker_pb2.WorkerReply = field(default_factory=description)
    reply: worker_pb2.WorkerReply | bytes | tuple[grpc.StatusCode, str] = field(default_factory=rows)
    delay_s: float = 0
    queue: int | None = None
    stalled: asyncio.Event | None = None
    describe_delay_s: float = 0
    describe_refused: tuple[grpc.StatusCode, str] | None = None
    silent: bool = False
    asked: list[worker_pb2.WorkerRequest] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    seen_metadata: list[tuple[str, str]] = field(default_factory=list)

    @property
    def predictions(self) -> int:
        return len(self.asked)

    async def predict(self, request: torchserve_pb2.PredictionsRequest, context) -> torchserve_pb2.PredictionResponse:
        self.seen_metadata = list(context.invocation_metadata())
        asked = worker_pb2.WorkerRequest.FromString(request.input["body"])
        if asked.operation == model_pb2.OPERATION_DESCRIBE:
            await asyncio.sleep(self.describe_delay_s)
            if self.describe_refused:
                await context.abort(*self.describe_refused)
            return torchserve_pb2.PredictionResponse(prediction=self.described.SerializeToString())
        self.asked.append(asked)
        if self.queue is not None and self.running >= self.queue:
            await context.abort(*NO_WORKER)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await (self.stalled.wait() if self.stalled else asyncio.sleep(self.delay_s))
        finally:
            self.running -= 1
        if isinstance(self.reply, tuple):
            await context.abort(*self.reply)
        body = self.reply if isinstance(self.reply, bytes) else self.reply.SerializeToString()
        return torchserve_pb2.PredictionResponse(prediction=body)

    async def list_models(self, request, context) -> torchserve_pb2.ManagementResponse:
        await self._may_be_silent()
        return torchserve_pb2.ManagementResponse(msg=json.dumps({"models": [{"modelName": "toy"}]}))

    async def describe(self, request, context) -> torchserve_pb2.ManagementResponse:
        await self._may_be_silent()
        workers = [{"pid": pid, "status": "READY"} for pid in self.pids]
        return torchserve_pb2.ManagementResponse(msg=json.dumps([{"modelVersion": "1", "workers": workers}]))

    async def _may_be_silent(self) -> None:
        while self.silent:
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
    management = {
        "ListModels": _unary(fake.list_models, torchserve_pb2.ListModelsRequest),
        "DescribeModel": _unary(fake.describe, torchserve_pb2.DescribeModelRequest),
    }
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
