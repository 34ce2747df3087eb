"""EvaluationService: create, get, list, watch, cancel and delete evaluations, and fetch their reports.

Requests become domain values (`evaluation_request`), records become messages (`evaluation_message`). Where evaluations
are kept, and who runs them, is behind `Evaluations`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import grpc

from fount.v1 import evaluation_pb2, evaluation_pb2_grpc
from service.caller import Caller, current_caller
from service.catalog import Catalog
from service.config import CHUNK_BYTES, GatewayConfig
from service.datasets import Datasets
from service.errors import EvaluationNotDone, EvaluationRefused, InvalidRequest, NotReady, Violation
from service.evaluation.record import Record, State
from service.rpc.evaluation_message import list_evaluations, record_to_message
from service.rpc.loading import read_when_loaded

__all__ = ["EvaluationServicer"]

if TYPE_CHECKING:
    from service.evaluation.jobs.evaluations import Evaluations  # loads database libraries

    Context = grpc.aio.ServicerContext[object, object]  # generic in the stubs alone

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{0,128}")
_POLL_INTERVAL_S = 0.5  # of a watched evaluation
_MESSAGE_INTERVAL_S = 4.0  # at most, between two messages of a watch: 5 s are promised
_NEIGHBOURS_GRANT = "view-training-neighbours"

_Format = evaluation_pb2.GetEvaluationReportRequest.Format
_Read = tuple[Record, evaluation_pb2.WatchEvaluationResponse]


class EvaluationServicer(evaluation_pb2_grpc.EvaluationServiceServicer):
    """Answers the seven RPCs.

    Args:
        evaluations: None where evaluations are off.
        why_waiting: returns why no queued evaluation is started; empty when they are.
    """

    def __init__(
        self,
        *,
        evaluations: Evaluations | None,
        catalog: Catalog,
        datasets: Datasets,
        config: GatewayConfig,
        poll_interval_s: float = _POLL_INTERVAL_S,
        why_waiting: Callable[[], str] = str,
    ) -> None:
        if evaluations is not None:  # it imports statistics, which takes long: now, not during the first request
            import service.rpc.evaluation_request  # noqa: F401
        self._evaluations = evaluations
        self._catalog = catalog
        self._datasets = datasets
        self._max_samples = config.max_evaluation_samples
        self._poll_interval_s = poll_interval_s
        self._why_waiting = why_waiting
        self._watched = _WatchedEvaluations(poll_interval_s / 2, self._explained)
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End every watch with UNAVAILABLE, so that clients watch elsewhere or later."""
        self._draining.set()

    async def CreateEvaluation(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.CreateEvaluationRequest, context: Context
    ) -> evaluation_pb2.CreateEvaluationResponse:
        """Check a request, pin what it depends on, and queue it; an equal earlier request returns its evaluation."""
        evaluations, caller = self._enabled(), _caller()
        request_id, digest = _request_id(request), _digest(request)
        record = await evaluations.find(caller.subject, request_id) if request_id else None
        if record is None:
            from service.rpc.evaluation_request import read_create_request  # `__init__` loaded it

            read = partial(
                read_create_request, request, catalog=self._catalog, datasets=self._datasets, caller=caller,
                max_samples=self._max_samples,
            )  # fmt: skip
            specification = await read_when_loaded(read, self._catalog, context)
            record = await evaluations.create(
                caller.subject, specification, request_id=request_id, request_digest=digest
            )
        if request_id and record.request_digest != digest:
            description = f"{request_id!r} is the request_id of a different request, which created {record.id}"
            raise InvalidRequest((Violation(field="request_id", description=f"{description}; choose another"),))
        return evaluation_pb2.CreateEvaluationResponse(evaluation=record_to_message(record))

    async def GetEvaluation(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.GetEvaluationRequest, context: Context
    ) -> evaluation_pb2.GetEvaluationResponse:
        """Return an evaluation of the caller."""
        record = self._explained(await self._enabled().get(_caller().subject, _id(request.id)))
        return evaluation_pb2.GetEvaluationResponse(evaluation=record_to_message(record))

    async def ListEvaluations(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.ListEvaluationsRequest, context: Context
    ) -> evaluation_pb2.ListEvaluationsResponse:
        """Return one page of the caller's evaluations."""
        return await list_evaluations(self._enabled(), _caller().subject, request, self._explained)

    async def CancelEvaluation(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.CancelEvaluationRequest, context: Context
    ) -> evaluation_pb2.CancelEvaluationResponse:
        """End an evaluation that is queued or running."""
        record = await self._enabled().cancel(_caller().subject, _id(request.id))
        return evaluation_pb2.CancelEvaluationResponse(evaluation=record_to_message(record))

    async def DeleteEvaluation(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.DeleteEvaluationRequest, context: Context
    ) -> evaluation_pb2.DeleteEvaluationResponse:
        """Remove an evaluation with its report."""
        await self._enabled().delete(_caller().subject, _id(request.id))
        return evaluation_pb2.DeleteEvaluationResponse()

    async def WatchEvaluation(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.WatchEvaluationRequest, context: Context
    ) -> AsyncGenerator[evaluation_pb2.WatchEvaluationResponse, None]:
        """Stream an evaluation whenever it changes, until it has ended."""
        evaluations, caller, evaluation_id = self._enabled(), _caller(), _id(request.id)
        sent, sent_s = None, 0.0
        while True:
            record, message = await self._watched.read(evaluations, caller.subject, evaluation_id)
            if record != sent or time.monotonic() - sent_s >= _MESSAGE_INTERVAL_S - self._poll_interval_s:
                yield message
                sent, sent_s = record, time.monotonic()
            if record.state.ended:
                return
            try:
                async with asyncio.timeout(self._poll_interval_s):
                    await self._draining.wait()
            except TimeoutError:
                continue
            raise NotReady("the gateway is draining; watch again")

    async def GetEvaluationReport(  # noqa: N802  # gRPC's name
        self, request: evaluation_pb2.GetEvaluationReportRequest, context: Context
    ) -> AsyncGenerator[evaluation_pb2.GetEvaluationReportResponse, None]:
        """Stream a report as one file."""
        evaluations, caller, evaluation_id = self._enabled(), _caller(), _id(request.id)
        if request.format not in _Format.values():
            raise InvalidRequest((Violation(field="format", description=f"{request.format} is not a Format"),))
        record = await evaluations.get(caller.subject, evaluation_id)
        bundle = await evaluations.report(caller.subject, evaluation_id)
        redacted = not caller.may(_NEIGHBOURS_GRANT)
        file = memoryview(await asyncio.to_thread(_render, bundle, record, request.format, redacted=redacted))
        for first in range(0, len(file), CHUNK_BYTES):
            yield evaluation_pb2.GetEvaluationReportResponse(
                data=bytes(file[first : first + CHUNK_BYTES]), total_bytes=len(file), redacted=redacted
            )

    def _explained(self, record: Record) -> Record:
        """Add to a queued evaluation why it is not started."""
        waiting = self._why_waiting() if record.state is State.QUEUED else ""
        return replace(record, reason=waiting) if waiting else record

    def _enabled(self) -> Evaluations:
        if self._evaluations is None:
            raise EvaluationRefused(
                "evaluations are off: this gateway has no database of jobs; "
                "start it with --jobs sqlite:///PATH or --jobs postgresql://…"
            )
        return self._evaluations


class _WatchedEvaluations:
    """Reads watched evaluations, so that all watches of one share a read, and what it returned, for `kept_s`."""

    def __init__(self, kept_s: float, explained: Callable[[Record], Record]) -> None:
        self._kept_s, self._explained = kept_s, explained
        self._reads: dict[tuple[str, str], asyncio.Task[_Read]] = {}  # by subject and id

    async def read(self, evaluations: Evaluations, subject: str, evaluation_id: str) -> _Read:
        """Return an evaluation, as `Evaluations.get` does, and as a message."""
        key = (subject, evaluation_id)
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(self._read(evaluations, subject, evaluation_id))
            task.add_done_callback(partial(self._keep, key))
        return await asyncio.shield(task)  # one watch that ends does not end the read of the others

    async def _read(self, evaluations: Evaluations, subject: str, evaluation_id: str) -> _Read:
        record = self._explained(await evaluations.get(subject, evaluation_id))
        return record, evaluation_pb2.WatchEvaluationResponse(evaluation=record_to_message(record))

    def _keep(self, key: tuple[str, str], task: asyncio.Task[_Read]) -> None:
        asyncio.get_running_loop().call_later(self._kept_s, self._reads.pop, key)
        if not task.cancelled():
            task.exception()  # retrieved also when every watch has ended


def _caller() -> Caller:
    caller = current_caller()
    caller.require("evaluate")
    return caller


def _id(text: str) -> str:
    if not text:
        description = "name an evaluation; `fount evaluations` (ListEvaluations) lists them"
        raise InvalidRequest((Violation(field="id", description=description),))
    return text


def _request_id(request: evaluation_pb2.CreateEvaluationRequest) -> str:
    if not _REQUEST_ID.fullmatch(request.request_id):
        description = "must be at most 128 letters, digits, dots, dashes and underscores"
        raise InvalidRequest((Violation(field="request_id", description=description),))
    return request.request_id


def _digest(request: evaluation_pb2.CreateEvaluationRequest) -> str:
    """Digest a request without its request_id; a repeated request has the same digest."""
    compared = evaluation_pb2.CreateEvaluationRequest()
    compared.CopyFrom(request)
    compared.ClearField("request_id")
    return hashlib.sha256(compared.SerializeToString(deterministic=True)).hexdigest()


def _render(bundle: bytes, record: Record, form: int, *, redacted: bool) -> bytes:
    """Render the file, in a thread: it takes a while, and templates and charts take long to import."""
    if form == evaluation_pb2.GetEvaluationReportRequest.FORMAT_HTML:
        from service.evaluation.report.page import render as make
    else:
        from service.evaluation.report.bundle import to_report_json as make
    try:
        return make(bundle, redacted=redacted, record=record)
    except ValueError as error:  # written by another release
        raise EvaluationNotDone(f"the report of {record.id} cannot be read: {error}; evaluate again") from error
