"""A fake gateway for evaluations: a real gRPC server that reports configured states, and breaks as configured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from fount.v1 import evaluation_pb2, evaluation_pb2_grpc, model_pb2
from tests.contract.fake_gateway import DIGEST, NUMERICS, error_info, rich

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = range(1, 6)
LIKE_REAL, NEAR_REAL, WORSE = range(1, 4)
CREATED_S = 1_700_000_000


def metrics() -> list[evaluation_pb2.Metric]:
    """Return three metrics: one that decides, one that does not, and one that could not be computed."""
    fid = evaluation_pb2.Metric(
        name="fid",
        panel=evaluation_pb2.PANEL_REALISM,
        value=12.5,
        interval=between(11, 14),
        null=evaluation_pb2.Null(mean=2, range=between(1.5, 2.5), draws=20, rows=1000),
        verdict=WORSE,
        better="lower",
        method="Heusel et al. 2017, 1000 samples",
        samples=1000,
    )
    copy_rate = evaluation_pb2.Metric(
        name="copy_rate",
        panel=evaluation_pb2.PANEL_MEMORISATION,
        value=0.004,
        interval=between(0.001, 0.02),
        null=evaluation_pb2.Null(mean=0.01, range=between(0.005, 0.015), draws=1, rows=500),
        verdict=LIKE_REAL,
        decides=True,
        better="lower",
        method="1000 samples",
        samples=1000,
        classes=[evaluation_pb2.ClassValue(class_name="zero", value=0.5, verdict=NEAR_REAL), {"class_name": "one"}],
    )
    kid = evaluation_pb2.Metric(
        name="kid", panel=evaluation_pb2.PANEL_REALISM, better="lower", method="-", note="features are not finite"
    )
    return [fid, kid, copy_rate]


def between(low: float, high: float) -> model_pb2.ValueRange:
    return model_pb2.ValueRange(min=low, max=high)


def ref(name: str) -> model_pb2.ModelRef:
    return model_pb2.ModelRef(name=name, version="1.0", digest=DIGEST)


@dataclass
class FakeEvaluations(evaluation_pb2_grpc.EvaluationServiceServicer):
    """Attributes:
    refusals: statuses with which the next calls of any kind end.
    states: what a watch reports before the end, as (done, total, stage); the last has metrics.
    waits: why it is still queued, in the states after the first.
    end: the final state.
    end_reason: the reason of the final state.
    failing: gates that do not pass.
    breaks: the number of states after which each of the next watches breaks with UNAVAILABLE.
    stops: whether a watch ends without an error before the evaluation has ended.
    hold: a watch waits for it before the final state; None: it does not wait.
    report: the file of a report.
    part_bytes: bytes a part.
    redacted: whether the report is redacted.
    report_breaks: the number of parts after which each of the next reports breaks.
    page: evaluations a page of a list.
    classes: of the reference.
    made: evaluations by id.
    """

    refusals: list[status_pb2.Status] = field(default_factory=list)
    states: list[tuple[int, int, str]] = field(default_factory=lambda: [(0, 0, ""), (3, 10, "drawing samples")])
    waits: list[str] = field(default_factory=list)
    end: int = SUCCEEDED
    end_reason: str = ""
    failing: frozenset[str] = frozenset()
    breaks: list[int] = field(default_factory=list)
    stops: bool = False
    hold: threading.Event | None = None
    report: bytes = b"<html>report</html>"
    part_bytes: int = 4
    redacted: bool = False
    report_breaks: list[int] = field(default_factory=list)
    page: int = 2
    classes: tuple[str, ...] = ("zero", "one")
    made: dict[str, evaluation_pb2.Evaluation] = field(default_factory=dict)
    requests: list[evaluation_pb2.CreateEvaluationRequest] = field(default_factory=list)
    listed: list[evaluation_pb2.ListEvaluationsRequest] = field(default_factory=list)
    watched: int = 0
    cancelled: list[str] = field(default_factory=list)

    def CreateEvaluation(self, request, context) -> evaluation_pb2.CreateEvaluationResponse:
        self.requests.append(request)
        self._refuse(context)
        for made in self.made.values():
            if made.request_id == request.request_id:
                return evaluation_pb2.CreateEvaluationResponse(evaluation=made)
        evaluation = evaluation_pb2.Evaluation(
            id=f"ev-{len(self.made) + 1}",
            state=QUEUED,
            state_reason="waits for a runner",
            request_id=request.request_id,
            envelope=evaluation_pb2.Envelope(
                model=ref(request.model.name),
                model_numerics=NUMERICS,
                extractor=ref("digits-classifier"),
                classifier=ref("digits-classifier"),
                reference={"dataset": "digits", "training_split": "train", "held_out_split": "test"},
                training_rows=1438,
                held_out_rows=359,
                count=request.count or 10000,
                seed=request.seed,
                parameters=request.parameters,
                panels=request.panels or [1, 3],
                gates=request.gates,
                classes=self.classes,
                conditional=True,
            ),
        )
        evaluation.create_time.FromSeconds(CREATED_S)
        self.made[evaluation.id] = evaluation
        return evaluation_pb2.CreateEvaluationResponse(evaluation=evaluation)

    def GetEvaluation(self, request, context) -> evaluation_pb2.GetEvaluationResponse:
        self._refuse(context)
        return evaluation_pb2.GetEvaluationResponse(evaluation=self.find(request.id, context))

    def ListEvaluations(self, request, context) -> evaluation_pb2.ListEvaluationsResponse:
        self.listed.append(evaluation_pb2.ListEvaluationsRequest.FromString(request.SerializeToString()))
        self._refuse(context)
        start, found = int(request.page_token or 0), list(self.made.values())[::-1]
        more = str(start + self.page) if start + self.page < len(found) else ""
        return evaluation_pb2.ListEvaluationsResponse(
            evaluations=found[start : start + self.page], next_page_token=more
        )

    def CancelEvaluation(self, request, context) -> evaluation_pb2.CancelEvaluationResponse:
        self.cancelled.append(request.id)
        evaluation = self.find(request.id, context)
        evaluation.state, evaluation.state_reason = CANCELLED, "its owner cancelled it"
        return evaluation_pb2.CancelEvaluationResponse(evaluation=evaluation)

    def DeleteEvaluation(self, request, context) -> evaluation_pb2.DeleteEvaluationResponse:
        del self.made[self.find(request.id, context).id]
        return evaluation_pb2.DeleteEvaluationResponse()

    def WatchEvaluation(self, request, context) -> Iterator[evaluation_pb2.WatchEvaluationResponse]:
        self.watched += 1
        self._refuse(context)
        evaluation = self.find(request.id, context)
        break_after = self.breaks.pop(0) if self.breaks else None
        for reason in self.waits:
            yield evaluation_pb2.WatchEvaluationResponse(evaluation=evaluation)
            evaluation.state_reason = reason
        for shown, (done, total, stage) in enumerate([*self.states, (10, 10, "writing the report")]):
            if shown == break_after:
                abort(context, rich(code_pb2.UNAVAILABLE, "draining", error_info("DRAINING")))
            if shown == len(self.states):
                if self.hold is not None:
                    self.hold.wait(30)
                if self.stops:
                    return
                self.finish(evaluation)
            elif total:
                evaluation.state, evaluation.state_reason = RUNNING, ""
                replace(evaluation.metrics, metrics()[:1])
            evaluation.progress.done, evaluation.progress.total, evaluation.progress.stage = done, total, stage
            yield evaluation_pb2.WatchEvaluationResponse(evaluation=evaluation)

    def GetEvaluationReport(self, request, context) -> Iterator[evaluation_pb2.GetEvaluationReportResponse]:
        self._refuse(context)
        if self.find(request.id, context).state != SUCCEEDED:
            abort(context, rich(code_pb2.FAILED_PRECONDITION, "it has no report yet", error_info("NOT_DONE")))
        is_html = request.format == evaluation_pb2.GetEvaluationReportRequest.FORMAT_HTML
        data = self.report if is_html else b'{"report": 1}'
        break_after = self.report_breaks.pop(0) if self.report_breaks else None
        for part, start in enumerate(range(0, len(data), self.part_bytes)):
            if part == break_after:
                abort(context, rich(code_pb2.UNAVAILABLE, "draining", error_info("DRAINING")))
            yield evaluation_pb2.GetEvaluationReportResponse(
                data=data[start : start + self.part_bytes], total_bytes=len(data), redacted=self.redacted
            )

    def finish(self, evaluation: evaluation_pb2.Evaluation) -> None:
        evaluation.state, evaluation.state_reason = self.end, self.end_reason
        evaluation.start_time.FromSeconds(CREATED_S + 5)
        evaluation.end_time.FromSeconds(CREATED_S + 130)
        if self.end != SUCCEEDED:
            return
        replace(evaluation.metrics, metrics())
        panels = [
            evaluation_pb2.PanelVerdict(panel=1, verdict=WORSE, sentence="Samples differ from real rows."),
            evaluation_pb2.PanelVerdict(panel=3, verdict=LIKE_REAL, sentence="No more copies than held-out rows."),
        ]
        replace(evaluation.panels, panels)
        gates = [
            evaluation_pb2.GateOutcome(gate=gate, passed=gate not in self.failing, actual=0.02)
            for gate in evaluation.envelope.gates
        ]
        replace(evaluation.gates, gates)
        evaluation.gates_passed = all(gate.passed for gate in evaluation.gates)

    def find(self, id: str, context: grpc.ServicerContext) -> evaluation_pb2.Evaluation:
        if id not in self.made:
            abort(context, rich(code_pb2.NOT_FOUND, f'no evaluation "{id}"', error_info("NO_EVALUATION")))
        return self.made[id]

    def make(self, model: str = "digits-cvae", end: int | None = None) -> evaluation_pb2.Evaluation:
        """Create an evaluation before the test starts."""
        request = evaluation_pb2.CreateEvaluationRequest(model={"name": model}, request_id=f"made-{len(self.made)}")
        evaluation = self.made[self.CreateEvaluation(request, None).evaluation.id]
        self.requests.clear()
        if end is not None:
            self.end = end
            self.finish(evaluation)
        return evaluation

    def _refuse(self, context: grpc.ServicerContext | None) -> None:
        if context is not None and self.refusals:
            abort(context, self.refusals.pop(0))


def replace(field, messages: list) -> None:
    del field[:]
    field.extend(messages)


def abort(context: grpc.ServicerContext, status: status_pb2.Status) -> None:
    context.abort_with_status(rpc_status.to_status(status))


@contextmanager
def serving_evaluations(evaluations: FakeEvaluations) -> Iterator[str]:
    """Serve on a free port with threads, and yield the address."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server(evaluations, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        stopped = server.stop(None)
        if evaluations.hold is not None:
            evaluations.hold.set()
        stopped.wait()
