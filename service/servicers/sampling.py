"""SamplingService: one request in, a header and chunks out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import grpc

from fount.v1 import model_pb2, sampling_pb2, sampling_pb2_grpc
from service.caller import current_caller
from service.catalog import Catalog
from service.chunks import piece_to_responses, sample_spec
from service.domain import Encoding
from service.orders import SampleOrder, read_sample_request
from service.scheduler import Piece, Scheduler, Work
from service.telemetry.interceptor import current_request_id
from service.telemetry.metrics import Metrics

__all__ = ["SamplingServicer"]


class SamplingServicer(sampling_pb2_grpc.SamplingServiceServicer):
    """Answers Sample."""

    def __init__(self, catalog: Catalog, scheduler: Scheduler, metrics: Metrics) -> None:
        self._catalog = catalog
        self._scheduler = scheduler
        self._metrics = metrics

    async def Sample(  # type: ignore[override]  # noqa: N802  # gRPC's name; chunks are framed messages
        self, request: sampling_pb2.SampleRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> AsyncGenerator[sampling_pb2.SampleResponse | bytes, None]:
        """Stream a header, then samples in order."""
        caller = current_caller()
        caller.require(f"sample:{request.model.name}")
        urgent = request.priority == sampling_pb2.PRIORITY_INTERACTIVE
        if urgent:
            caller.require("priority:interactive")
        order = read_sample_request(request, self._catalog)
        remaining_s = context.time_remaining()
        work = Work(
            target=order.target,
            parameters=order.parameters,
            dtype=order.dtype,
            sample_bytes=order.model.sample_bytes(order.dtype),
            seed=order.seed,
            start_index=order.start_index,
            count=order.count,
            labels=order.labels,
            caller=caller,
            deadline_unix_s=None if remaining_s is None else time.time() + remaining_s,
            request_id=current_request_id(),
            urgent=urgent,
        )
        begun = time.monotonic()
        async with aclosing(self._scheduler.run(work)) as pieces:
            header_sent = False
            async for piece in pieces:
                if not header_sent:  # only now: whatever refuses the stream refuses it before its header
                    yield _header(order)
                    header_sent = True
                    self._metrics.first_sample(order.target.model, time.monotonic() - begun)
                for response in await _responses(piece, order.encoding):
                    yield response
                self._metrics.delivered(order.target.model, len(piece.rows) - len(piece.failures), len(piece.failures))


async def _responses(piece: Piece, encoding: Encoding) -> Iterable[bytes]:
    """Framed chunks of a piece; pictures are compressed beside the event loop, so that nobody waits for them."""
    if encoding is Encoding.PNG:
        return await asyncio.to_thread(lambda: list(piece_to_responses(piece, encoding)))
    return piece_to_responses(piece, encoding)


def _header(order: SampleOrder) -> sampling_pb2.SampleResponse:
    key = order.target.model
    header = sampling_pb2.SampleHeader(
        model=model_pb2.ModelRef(name=key.name, version=key.version, digest=key.digest),
        seed=order.seed,
        numerics=order.target.numerics,
        sample_spec=sample_spec(order.model, order.encoding),
    )
    return sampling_pb2.SampleResponse(header=header)
