"""SamplingService: a request enters; a header and chunks leave, as a stream or in one message."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING

import grpc

from fount.v1 import sampling_pb2, sampling_pb2_grpc
from service.caller import current_caller
from service.catalog import Catalog
from service.config import CHUNK_BYTES
from service.domain import Encoding, Modality, Target
from service.rpc.chunks import join_pieces, responses_of, sample_spec
from service.rpc.fields import reference_to_message
from service.rpc.interceptor import request_context
from service.rpc.loading import read_when_loaded
from service.rpc.sampling_request import SampleSpec, read_sample_request
from service.rpc.texts import text_spec, trim_texts
from service.scheduler.scheduler import BatchingScheduler
from service.scheduler.stream import SampleStream
from service.scheduler.work import Feed, GivenFeed, Piece, Progress, RangeFeed, Work
from service.telemetry.metrics import Metrics

__all__ = ["SamplingServicer"]

_MOST_IN_ONE_MESSAGE = 256  # samples

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[object, object]


class SamplingServicer(sampling_pb2_grpc.SamplingServiceServicer):
    """Answers Sample and SampleOnce."""

    def __init__(self, catalog: Catalog, scheduler: BatchingScheduler, metrics: Metrics) -> None:
        self._catalog = catalog
        self._scheduler = scheduler
        self._metrics = metrics

    async def Sample(  # type: ignore[override]  # noqa: N802  # gRPC's name; chunks are framed messages
        self, request: sampling_pb2.SampleRequest, context: Context
    ) -> AsyncGenerator[sampling_pb2.SampleResponse | bytes, None]:
        """Stream a header, then samples in order."""
        spec, header_sent = await read_when_loaded(lambda: self._read(request), self._catalog, context), False
        with closing(self._open(spec, spec.count, context)) as pieces:
            while (update := await pieces.update()) is not None:
                if not header_sent:  # only now: whatever refuses the stream refuses it before its header
                    yield sampling_pb2.SampleResponse(header=_header(spec))
                    header_sent = True
                if isinstance(update, Progress):
                    yield _progress(update)
                    continue
                if update.start_index == spec.start_index:
                    self._first(spec, pieces)
                trimmed, texts = _trimmed(spec, update)
                for response in await responses_of(trimmed, spec.encoding, texts):
                    yield response
                self._count(spec, trimmed)

    async def SampleOnce(  # type: ignore[override]  # noqa: N802  # as above
        self, request: sampling_pb2.SampleOnceRequest, context: Context
    ) -> sampling_pb2.SampleOnceResponse | bytes:
        """Return a header and the samples that fit one chunk."""
        spec = await read_when_loaded(lambda: self._read(request.request), self._catalog, context)
        header = sampling_pb2.SampleOnceResponse(header=_header(spec))
        count = min(spec.count, _MOST_IN_ONE_MESSAGE, CHUNK_BYTES // _most_bytes(spec))
        if not count:
            return header
        with closing(self._open(spec, count, context)) as pieces:
            piece, texts = _trimmed(spec, join_pieces([each async for each in pieces]))
        self._first(spec, pieces)
        (chunk,) = await responses_of(piece, spec.encoding, texts)
        self._count(spec, piece)
        return header.SerializeToString() + chunk  # a framed SampleResponse: the field `chunk` has the same number

    async def _read(self, request: sampling_pb2.SampleRequest) -> SampleSpec:
        caller = current_caller()
        caller.require(f"sample:{request.model.name}")
        if request.priority == sampling_pb2.PRIORITY_INTERACTIVE:
            caller.require("priority:interactive")
        return read_sample_request(request, self._catalog)

    def _open(self, spec: SampleSpec, count: int, context: Context) -> SampleStream:
        work = Work(
            target=spec.target,
            operation=spec.operation,
            parameters=spec.parameters,
            feed=_feed(spec),
            sample_bytes=spec.model.sample_bytes(spec.dtype),
            start_index=spec.start_index,
            count=count,
            context=request_context(context, spec.priority),
            draw_steps=spec.model.draw_steps,
            reports_progress=spec.reports_progress,
        )
        return self._scheduler.open(work)

    def _first(self, spec: SampleSpec, stream: SampleStream) -> None:
        self._metrics.first_sample(spec.target.model, time.monotonic() - stream.opened_s)

    def _count(self, spec: SampleSpec, piece: Piece) -> None:
        self._metrics.delivered(spec.target.model, len(piece.rows) - len(piece.failures), len(piece.failures))


def _progress(progress: Progress) -> sampling_pb2.SampleResponse:
    message = sampling_pb2.SampleProgress(steps_done=progress.steps_done, steps_total=progress.steps_total)
    return sampling_pb2.SampleResponse(progress=message)


def _feed(spec: SampleSpec) -> Feed:
    if spec.given is None:
        return RangeFeed(seed=spec.seed, labels=spec.labels, dtype=spec.dtype)
    return GivenFeed(
        rows=spec.given.rows,
        mask=spec.given.mask,
        first_index=spec.start_index,
        seed=spec.seed,
        labels=spec.labels,
        dtype=spec.dtype,
    )


def _trimmed(spec: SampleSpec, piece: Piece) -> tuple[Piece, list[bytes] | None]:
    """Return a piece with its texts; None of other samples."""
    return trim_texts(piece, prefix=spec.prefix, stop=spec.stop) if spec.model.is_text else (piece, None)


def _most_bytes(spec: SampleSpec) -> int:
    """Return the most bytes that one sample takes."""
    size = spec.model.sample_bytes(spec.dtype)
    if spec.encoding is Encoding.PNG:  # of noise: a filter byte a row, zlib's blocks, the file's headers
        size += spec.model.sample_dims[0] + size // 256 + 256
    return size


def _header(spec: SampleSpec) -> sampling_pb2.SampleHeader:
    model = spec.model
    header = sampling_pb2.SampleHeader()
    header.CopyFrom(_seedless_header(spec.target, model.modality, model.sample_dims, model.value_range, spec.encoding))
    header.seed = spec.seed
    return header


@lru_cache(maxsize=256)
def _seedless_header(
    target: Target, modality: Modality, dims: tuple[int, ...], value_range: tuple[float, float], encoding: Encoding
) -> sampling_pb2.SampleHeader:
    return sampling_pb2.SampleHeader(
        model=reference_to_message(target.model),
        numerics=target.numerics,
        sample_spec=text_spec() if modality is Modality.TEXT else sample_spec(dims, value_range, encoding),
    )
