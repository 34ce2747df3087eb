"""EvaluationService: evaluations are asked for, watched, ended, and their reports fetched.

Where they are kept and who works on them is behind `Evaluations`; here messages become values and back.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

import grpc

from fount.v1 import evaluation_pb2, evaluation_pb2_grpc
from service.caller import Caller, current_caller
from service.catalog import Catalog
from service.config import CHUNK_BYTES, GatewayConfig
from service.datasets import Datasets
from service.errors import EvaluationNotDone, EvaluationRefused, InvalidRequest, NotReady, Violation
from service.evaluation.record import Evaluations, Record
from service.evaluation.specification import Specification
from service.rpc.evaluation_message import list_evaluations, record_to_message

__all__ = ["EvaluationServicer"]

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[object, object]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{0,128}")
_LOOK_S = 0.5  # between two looks at a watched evaluation
_SAY_S = 4.0  # at most between two messages, so that they come within the 5 s that are promised
_NEIGHBOURS = "view-training-neighbours"

_Format = evaluation_pb2.GetEvaluationReportRequest.Format


class EvaluationServicer(evaluation_pb2_grpc.EvaluationServiceServicer):
    """Answers the seven RPCs.

    Args:
        evaluations: where they are kept; None: evaluations are off.
        catalog: what is served now.
        datasets: what models may be compared with.
        config: the most samples of one.
        look_s: between two looks at a watched evaluation.
    """

    def __init__(
        self,
        *,
        evaluations: Evaluations | None,
        catalog: Catalog,
        datasets: Datasets,
        config: GatewayConfig,
        look_s: float = _LOOK_S,
    ) -> None:
        self._evaluations = evaluations
        self._catalog = catalog
        self._datasets = datasets
        self._max_samples = config.max_evaluation_samples
        self._look_s = look_s
        self._drained = asyncio.Event()

    def drain(self) -> None:
        """End every watch with UNAVAILABLE, so that clients watch on elsewhere or later."""
        self._drained.set()

    async def CreateEvaluation(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.CreateEvaluationRequest, context: Context
    ) -> evaluation_pb2.CreateEvaluationResponse:
        """Check a request, pin what it depends on, and queue it; or find what it made before."""
        kept, caller = self._kept(), _caller()
        request_id, digest = _request_id(request), _digest(request)
        record = await kept.find(caller.subject, request_id) if request_id else None
        if record is None:
            record = await self._create(kept, request, caller, digest)
        if request_id and record.request_digest != digest:
            told = f"{request_id!r} was the request_id of another request, which made {record.id}; choose another"
            raise InvalidRequest((Violation(field="request_id", description=told),))
        return evaluation_pb2.CreateEvaluationResponse(evaluation=record_to_message(record))

    async def GetEvaluation(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.GetEvaluationRequest, context: Context
    ) -> evaluation_pb2.GetEvaluationResponse:
        """Return an evaluation of the caller's own."""
        record = await self._kept().get(_caller().subject, _id(request.id))
        return evaluation_pb2.GetEvaluationResponse(evaluation=record_to_message(record))

    async def ListEvaluations(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.ListEvaluationsRequest, context: Context
    ) -> evaluation_pb2.ListEvaluationsResponse:
        """Return the caller's evaluations, a page at a time."""
        return await list_evaluations(self._kept(), _caller().subject, request)

    async def CancelEvaluation(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.CancelEvaluationRequest, context: Context
    ) -> evaluation_pb2.CancelEvaluationResponse:
        """End an evaluation that is queued or running."""
        record = await self._kept().cancel(_caller().subject, _id(request.id))
        return evaluation_pb2.CancelEvaluationResponse(evaluation=record_to_message(record))

    async def DeleteEvaluation(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.DeleteEvaluationRequest, context: Context
    ) -> evaluation_pb2.DeleteEvaluationResponse:
        """Remove an evaluation with its report."""
        await self._kept().delete(_caller().subject, _id(request.id))
        return evaluation_pb2.DeleteEvaluationResponse()

    async def WatchEvaluation(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.WatchEvaluationRequest, context: Context
    ) -> AsyncGenerator[evaluation_pb2.WatchEvaluationResponse, None]:
        """Stream an evaluation whenever it changes, until it has ended."""
        kept, caller, wanted = self._kept(), _caller(), _id(request.id)
        told, told_s = None, 0.0
        while True:
            record = await kept.get(caller.subject, wanted)
            if record != told or time.monotonic() - told_s >= _SAY_S - self._look_s:
                yield evaluation_pb2.WatchEvaluationResponse(evaluation=record_to_message(record))
                told, told_s = record, time.monotonic()
            if record.state.ended:
                return
            if await self._wait():
                raise NotReady("the gateway is draining; watch again")

    async def GetEvaluationReport(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.GetEvaluationReportRequest, context: Context
    ) -> AsyncGenerator[evaluation_pb2.GetEvaluationReportResponse, None]:
        """Stream a report as one file."""
        kept, caller, wanted = self._kept(), _caller(), _id(request.id)
        if request.format not in _Format.values():
            raise InvalidRequest((Violation(field="format", description=f"{request.format} is not a Format"),))
        record = await kept.get(caller.subject, wanted)
        bundle = await kept.report(caller.subject, wanted)
        redacted = not caller.may(_NEIGHBOURS)
        whole = memoryview(await asyncio.to_thread(_render, bundle, record, request.format, redacted))
        for first in range(0, len(whole), CHUNK_BYTES):
            yield evaluation_pb2.GetEvaluationReportResponse(
                data=bytes(whole[first : first + CHUNK_BYTES]), total_bytes=len(whole), redacted=redacted
            )

    def _kept(self) -> Evaluations:
        if self._evaluations is None:
            raise EvaluationRefused(
                "evaluations are off: this gateway has no database of jobs; "
                "start it with --jobs sqlite:///PATH or --jobs postgresql://…"
            )
        return self._evaluations

    async def _create(
        self, kept: Evaluations, request: evaluation_pb2.CreateEvaluationRequest, caller: Caller, digest: str
    ) -> Record:
        read_create_request = await asyncio.to_thread(_load_reader)
        specification = await read_create_request(
            request,
            catalog=self._catalog,
            datasets=self._datasets,
            caller=caller,
            max_samples=self._max_samples,
            code_version=version("fount"),
        )
        return await kept.create(caller.subject, specification, request_id=request.request_id, request_digest=digest)

    async def _wait(self) -> bool:
        """Wait until the next look; True when there is none."""
        try:
            async with asyncio.timeout(self._look_s):
                await self._drained.wait()
        except TimeoutError:
            return False
        return True


def _load_reader() -> Callable[..., Awaitable[Specification]]:
    """What checks requests; statistics load slowly, and are to keep no other call waiting."""
    from service.rpc.evaluation_request import read_create_request

    return read_create_request


def _caller() -> Caller:
    caller = current_caller()
    caller.require("evaluate")
    return caller


def _id(text: str) -> str:
    if not text:
        told = "name an evaluation; ListEvaluations lists them"
        raise InvalidRequest((Violation(field="id", description=told),))
    return text


def _request_id(request: evaluation_pb2.CreateEvaluationRequest) -> str:
    if not _REQUEST_ID.fullmatch(request.request_id):
        told = "must be at most 128 letters, digits, dots, dashes and underscores"
        raise InvalidRequest((Violation(field="request_id", description=told),))
    return request.request_id


def _digest(request: evaluation_pb2.CreateEvaluationRequest) -> str:
    """What two requests have in common when one repeats the other."""
    asked = evaluation_pb2.CreateEvaluationRequest()
    asked.CopyFrom(request)
    asked.ClearField("request_id")
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()


def _render(bundle: bytes, record: Record, form: int, redacted: bool) -> bytes:
    """The file; takes a while, and templates and charts load slowly."""
    if form == evaluation_pb2.GetEvaluationReportRequest.FORMAT_HTML:
        from service.evaluation.report.page import render as make
    else:
        from service.evaluation.report.bundle import to_report_json as make
    try:
        return make(bundle, redacted=redacted, record=record)
    except ValueError as error:  # left by another release
        raise EvaluationNotDone(f"the report of {record.id} cannot be read: {error}; evaluate again") from error
