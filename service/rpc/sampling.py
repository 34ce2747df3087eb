"""SamplingService: one request in; a header and chunks out, as a stream or in one message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc

from fount.v1 import model_pb2, sampling_pb2, sampling_pb2_grpc
from service.caller import current_caller
from service.catalog import Catalog
from service.config import CHUNK_BYTES
from service.domain import Encoding, Priority
from service.rpc.chunks import join_pieces, piece_to_responses, sample_spec
from service.rpc.interceptor import current_request_id
from service.rpc.sampling_request import SampleOrder, read_sample_request
from service.scheduler.scheduler import BatchingScheduler
from service.scheduler.work import Piece, RangeFeed, Work
from service.telemetry.metrics import Metrics

__all__ = ["SamplingServicer"]

_MOST_AT_ONCE = 256  # samples of one message

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
        order = self._order(request)
        header_sent = False
        async with aclosing(self._pieces(order, order.count, request, context)) as pieces:
            async for piece in pieces:
                if not header_sent:  # only now: whatever refuses the stream refuses it before its header
                    yield sampling_pb2.SampleResponse(header=_header(order))
                    header_sent = True
                for response in await _responses(piece, order.encoding):
                    yield response
                self._delivered(order, piece)

    async def SampleOnce(  # type: ignore[override]  # noqa: N802  # as above
        self, request: sampling_pb2.SampleOnceRequest, context: Context
    ) -> sampling_pb2.SampleOnceResponse | bytes:
        """Answer a header and the samples that fit one chunk."""
        order = self._order(request.request)
        header = sampling_pb2.SampleOnceResponse(header=_header(order))
        count = min(order.count, _MOST_AT_ONCE, CHUNK_BYTES // _most_bytes(order))
        if not count:
            return header
        async with aclosing(self._pieces(order, count, request.request, context)) as pieces:
            piece = join_pieces([each async for each in pieces])
        (chunk,) = await _responses(piece, order.encoding)
        self._delivered(order, piece)
        return header.SerializeToString() + chunk  # a framed SampleResponse: the field `chunk` has the same number

    def _order(self, request: sampling_pb2.SampleRequest) -> SampleOrder:
        caller = current_caller()
        caller.require(f"sample:{request.model.name}")
        if request.priority == sampling_pb2.PRIORITY_INTERACTIVE:
            caller.require("priority:interactive")
        return read_sample_request(request, self._catalog)

    async def _pieces(
        self, order: SampleOrder, count: int, request: sampling_pb2.SampleRequest, context: Context
    ) -> AsyncGenerator[Piece, None]:
        remaining_s = context.time_remaining()
        work = Work(
            target=order.target,
            parameters=order.parameters,
            feed=RangeFeed(seed=order.seed, labels=order.labels, dtype=order.dtype),
            sample_bytes=order.model.sample_bytes(order.dtype),
            start_index=order.start_index,
            count=count,
            caller=current_caller(),
            deadline_unix_s=None if remaining_s is None else time.time() + remaining_s,
            request_id=current_request_id(),
            priority=Priority.INTERACTIVE if request.priority == sampling_pb2.PRIORITY_INTERACTIVE else Priority.BULK,
        )
        begun: float | None = time.monotonic()
        async with aclosing(self._scheduler.run(work)) as pieces:
            async for piece in pieces:
                if begun is not None:
                    self._metrics.first_sample(order.target.model, time.monotonic() - begun)
                    begun = None
                yield piece

    def _delivered(self, order: SampleOrder, piece: Piece) -> None:
        self._metrics.delivered(order.target.model, len(piece.rows) - len(piece.failures), len(piece.failures))


async def _responses(piece: Piece, encoding: Encoding) -> Iterable[bytes]:
    """Framed chunks of a piece; pictures are compressed beside the event loop, so that nobody waits for them."""
    if encoding is Encoding.PNG:
        return await asyncio.to_thread(lambda: list(piece_to_responses(piece, encoding)))
    return piece_to_responses(piece, encoding)


def _most_bytes(order: SampleOrder) -> int:
    """How large a sample may be in the encoding asked for."""
    size = order.model.sample_bytes(order.dtype)
    if order.encoding is Encoding.PNG:  # of noise: a filter byte a row, zlib's blocks, the file's headers
        size += order.model.sample_dims[0] + size // 256 + 256
    return size


def _header(order: SampleOrder) -> sampling_pb2.SampleHeader:
    key = order.target.model
    return sampling_pb2.SampleHeader(
        model=model_pb2.ModelRef(name=key.name, version=key.version, digest=key.digest),
        seed=order.seed,
        numerics=order.target.numerics,
        sample_spec=sample_spec(order.model, order.encoding),
    )
