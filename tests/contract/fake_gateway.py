"""A fake gateway for samples: a real grpc.aio server that replies and breaks as configured.

Sample i of seed s is filled with the bytes of (s, i), so that what a client assembles can be checked by hand.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO

import grpc
import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from PIL import Image

from fount.v1 import model_pb2, model_pb2_grpc, sampling_pb2, sampling_pb2_grpc

DIGEST = "sha256:" + "a" * 64
NUMERICS = "cpu-test-fp32"
SIDE = 4


def pixels(seed: int, index: int) -> np.ndarray:
    """Return sample `index` of `seed`, (4, 4, 1) uint8."""
    return ((np.arange(SIDE * SIDE) + 31 * seed + 7 * index) % 256).astype(np.uint8).reshape(SIDE, SIDE, 1)


def rich(code: int, message: str, *details: Message) -> status_pb2.Status:
    packed = [AnyMessage() for _ in details]
    for target, detail in zip(packed, details, strict=True):
        target.Pack(detail)
    return status_pb2.Status(code=code, message=message, details=packed)


def error_info(reason: str, metadata: dict[str, str] | None = None) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain="fount", metadata=metadata or {})


def unavailable(message: str = "draining", reason: str = "DRAINING") -> status_pb2.Status:
    return rich(code_pb2.UNAVAILABLE, message, error_info(reason))


def overloaded(retry_after_s: float | None) -> status_pb2.Status:
    if retry_after_s is None:
        return rich(code_pb2.RESOURCE_EXHAUSTED, "the queue is full", error_info("QUEUE_FULL"))
    delay = Duration()
    delay.FromNanoseconds(round(retry_after_s * 1e9))
    retry = error_details_pb2.RetryInfo(retry_delay=delay)
    return rich(code_pb2.RESOURCE_EXHAUSTED, "the queue is full", error_info("QUEUE_FULL"), retry)


def invalid(**fields: str) -> status_pb2.Status:
    bad = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=name, description=text) for name, text in fields.items()
        ]
    )
    return rich(code_pb2.INVALID_ARGUMENT, "2 fields are wrong", error_info("BAD_FIELD"), bad)


@dataclass
class Behaviour:
    """How the gateway replies to one attempt.

    Attributes:
        status: the error after `break_after` chunks; None: no error.
        break_after: chunks sent before the status.
        silent_after: chunks sent before it stops sending; None: it never stops.
        stop_after: chunks sent before it ends the stream without an error; None: it sends all.
        delay_s: seconds before each chunk.
        digest: the digest in the header.
        numerics: the numerics id in the header.
    """

    status: status_pb2.Status | None = None
    break_after: int = 0
    silent_after: int | None = None
    stop_after: int | None = None
    delay_s: float = 0.0
    digest: str = DIGEST
    numerics: str = NUMERICS


@dataclass
class FakeGateway(sampling_pb2_grpc.SamplingServiceServicer, model_pb2_grpc.ModelServiceServicer):
    """Attributes:
    attempts: how it replies to one attempt after the other; without an error when they run out.
    chunk_count: samples a chunk.
    part_bytes: bytes a part of a sample; None: samples are not split.
    failed: indices of samples with an error.
    pages: pages of ListModels, one list of models each.
    """

    attempts: list[Behaviour] = field(default_factory=list)
    chunk_count: int = 4
    part_bytes: int | None = None
    failed: frozenset[int] = frozenset()
    class_names: tuple[str, ...] = tuple("0123456789")
    pages: list[list[model_pb2.Model]] = field(default_factory=list)
    requests: list[sampling_pb2.SampleRequest] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    chunks_sent: int = 0

    async def Sample(self, request, context) -> AsyncIterator[sampling_pb2.SampleResponse]:
        self.requests.append(request)
        behaviour = self.attempts.pop(0) if self.attempts else Behaviour()
        done = False
        try:
            if behaviour.status is None or behaviour.break_after:
                yield sampling_pb2.SampleResponse(header=self.header(request, behaviour))
                for sent, chunk in enumerate(self.chunks(request)):
                    if sent == behaviour.stop_after:
                        done = True
                        return
                    if sent == behaviour.silent_after:
                        await asyncio.sleep(60)
                    if behaviour.status is not None and sent == behaviour.break_after:
                        break
                    await asyncio.sleep(behaviour.delay_s)
                    self.chunks_sent += 1
                    yield sampling_pb2.SampleResponse(chunk=chunk)
            done = True
            if behaviour.status is not None:
                await abort(context, behaviour.status)
        finally:
            if not done:
                self.cancelled.set()

    def header(self, request: sampling_pb2.SampleRequest, behaviour: Behaviour) -> sampling_pb2.SampleHeader:
        model = model_pb2.ModelRef(name=request.model.name, version="1.0", digest=behaviour.digest)
        seed = request.seed if request.HasField("seed") else 4711
        return sampling_pb2.SampleHeader(
            model=model, seed=seed, numerics=behaviour.numerics, sample_spec=sample_spec(request.encoding)
        )

    def chunks(self, request: sampling_pb2.SampleRequest) -> Iterator[sampling_pb2.SampleChunk]:
        end = request.start_index + request.count
        for start in range(request.start_index, end, self.chunk_count):
            indices = range(start, min(start + self.chunk_count, end))
            rows = [self.row(request, index) for index in indices]
            chunk = sampling_pb2.SampleChunk(start_index=start, count=len(indices), data=b"".join(rows))
            chunk.labels.extend(self.label(request, index) for index in indices)
            if request.encoding == model_pb2.ENCODING_PNG:
                chunk.lengths.extend(map(len, rows))
            for index in self.failed.intersection(indices):
                chunk.errors.add(index=index, status=rich(code_pb2.INTERNAL, "not finite", error_info("NOT_FINITE")))
            yield from self.parts(chunk)

    def parts(self, chunk: sampling_pb2.SampleChunk) -> Iterator[sampling_pb2.SampleChunk]:
        if self.part_bytes is None:
            yield chunk
            return
        for offset in range(0, len(chunk.data), self.part_bytes):
            part = sampling_pb2.SampleChunk()
            part.CopyFrom(chunk)
            part.part_offset, part.part_total = offset, len(chunk.data)
            part.data = chunk.data[offset : offset + self.part_bytes]
            yield part

    def row(self, request: sampling_pb2.SampleRequest, index: int) -> bytes:
        seed = request.seed if request.HasField("seed") else 4711
        if request.encoding == model_pb2.ENCODING_PNG:
            return b"" if index in self.failed else as_png(pixels(seed, index))
        sample = np.zeros((SIDE, SIDE, 1), np.uint8) if index in self.failed else pixels(seed, index)
        if request.encoding == model_pb2.ENCODING_FLOAT32:
            return (sample / np.float32(255)).astype("<f4").tobytes()
        return sample.tobytes()

    def label(self, request: sampling_pb2.SampleRequest, index: int) -> int:
        kind = request.condition.WhichOneof("kind")
        if kind == "label":
            label = request.condition.label
            return label.id if label.WhichOneof("kind") == "id" else self.class_names.index(label.name)
        if kind == "labels":
            return request.condition.labels.ids[index - request.start_index]
        return index % 10

    async def ListModels(self, request, context) -> model_pb2.ListModelsResponse:
        pages = self.pages or [[self.model()]]
        page = int(request.page_token or 0)
        following = str(page + 1) if page + 1 < len(pages) else ""
        return model_pb2.ListModelsResponse(models=pages[page], next_page_token=following)

    async def GetModel(self, request, context) -> model_pb2.GetModelResponse:
        if request.model.name != "digits-cvae":
            await abort(context, rich(code_pb2.NOT_FOUND, f'no model "{request.model.name}"', error_info("NO_MODEL")))
        return model_pb2.GetModelResponse(model=self.model())

    def model(self, name: str = "digits-cvae") -> model_pb2.Model:
        labels = [model_pb2.Label(id=i, name=label) for i, label in enumerate(self.class_names)]
        truncation = model_pb2.ParameterSpec(
            name="truncation", range=model_pb2.ValueRange(min=0.5, max=4), description="How far z may be from 0."
        )
        quality = model_pb2.Quality(
            metric="label-accuracy",
            value=0.98,
            interval=model_pb2.ValueRange(min=0.975, max=0.985),
            real_value=0.99,
            method="10 000 samples",
        )
        return model_pb2.Model(
            ref=model_pb2.ModelRef(name=name, version="1.0", digest=DIGEST),
            state=model_pb2.Model.STATE_READY,
            is_default=True,
            family="conditional-vae",
            description="Handwritten digits.",
            operations=[model_pb2.OPERATION_SAMPLE],
            condition=model_pb2.ConditionSchema(labels=labels, prior=[1 / len(labels)] * len(labels)),
            sample_spec=sample_spec(model_pb2.ENCODING_UINT8),
            parameters=[truncation],
            encodings=[model_pb2.ENCODING_UINT8, model_pb2.ENCODING_FLOAT32, model_pb2.ENCODING_PNG],
            limits=model_pb2.Limits(max_count=10**8, max_labels=10**5),
            numerics=[NUMERICS],
            quality=[quality],
            intended_use="Tests.",
            data_licence="CC0",
            recipe="digits-cvae, seed 0",
        )


def sample_spec(encoding: int) -> model_pb2.SampleSpec:
    is_float = encoding == model_pb2.ENCODING_FLOAT32
    return model_pb2.SampleSpec(
        modality=model_pb2.SampleSpec.MODALITY_IMAGE,
        dtype=model_pb2.DTYPE_FLOAT32 if is_float else model_pb2.DTYPE_UINT8,
        dims=[SIDE, SIDE, 1],
        layout=model_pb2.SampleSpec.LAYOUT_HWC,
        value_range=model_pb2.ValueRange(min=0, max=1 if is_float else 255),
        encoding=encoding or model_pb2.ENCODING_UINT8,
    )


def as_png(image: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


async def abort(context: grpc.aio.ServicerContext, status: status_pb2.Status) -> None:
    plain = rpc_status.to_status(status)
    await context.abort(plain.code, plain.details, plain.trailing_metadata)


@asynccontextmanager
async def started(gateway: FakeGateway) -> AsyncIterator[str]:
    """Serve on a free port in the running event loop, and yield the address."""
    server = grpc.aio.server()
    sampling_pb2_grpc.add_SamplingServiceServicer_to_server(gateway, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@contextmanager
def serving(gateway: FakeGateway) -> Iterator[str]:
    """Serve on a free port in a thread, and yield the address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = started(gateway)
    try:
        yield asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
