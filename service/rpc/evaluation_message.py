"""A `Record` as the message that clients see."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import fields
from itertools import accumulate
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from fount.v1 import evaluation_pb2, model_pb2, sampling_pb2
from service.domain import Parameters
from service.errors import InvalidRequest, UnknownEvaluation, Violation
from service.evaluation.record import Record, State
from service.evaluation.results import ClassValue, Metric, Panel, Verdict
from service.evaluation.specification import PinnedModel, Specification
from service.evaluation.statistics.intervals import Interval

if TYPE_CHECKING:
    from service.evaluation.jobs.evaluations import Evaluations

__all__ = ["PANELS", "STATES", "list_evaluations", "record_to_message"]


PANELS = {panel: evaluation_pb2.Panel.Value(f"PANEL_{panel.name}") for panel in Panel}
"""The number of each panel."""

STATES = {state: evaluation_pb2.Evaluation.State.Value(f"STATE_{state.name}") for state in State}
"""The number of each state."""

_VERDICTS = {
    verdict: evaluation_pb2.Verdict.Value(f"VERDICT_{'UNSPECIFIED' if verdict is Verdict.NONE else verdict.name}")
    for verdict in Verdict
}


def record_to_message(record: Record, *, with_metrics: bool = True) -> evaluation_pb2.Evaluation:
    """The message of an evaluation.

    Args:
        record: what is known of it.
        with_metrics: whether its metrics are told; lists leave them out.
    """
    message = evaluation_pb2.Evaluation(
        id=record.id,
        state=STATES[record.state],
        state_reason=record.reason,
        envelope=_envelope(record.specification),
        progress=evaluation_pb2.Progress(
            stage=record.progress.stage,
            done=record.progress.done,
            total=record.progress.total,
            update_time=_time(record.progress.update_unix_s),
        ),
        metrics=[_metric(each) for each in record.metrics] if with_metrics else (),
        create_time=_time(record.create_unix_s),
        start_time=_time(record.start_unix_s),
        end_time=_time(record.end_unix_s),
        expire_time=_time(record.expire_unix_s),
        report_bytes=record.report_bytes,
        request_id=record.request_id,
    )
    for panel in record.panels:
        message.panels.add(panel=PANELS[panel.panel], verdict=_VERDICTS[panel.verdict], sentence=panel.sentence)
    for gate in record.gates:
        message.gates.add(gate=gate.gate, passed=gate.passed, actual=gate.actual, note=gate.note)
    if record.state is State.SUCCEEDED and len(record.gates) == len(record.specification.gates):  # else not looked up
        message.gates_passed = all(gate.passed for gate in record.gates)
    return message


def _time(unix_s: float | None) -> Timestamp | None:
    """A time; None, which leaves the field unset, where it is not known."""
    if unix_s is None:
        return None
    time = Timestamp()
    time.FromNanoseconds(round(unix_s * 1e9))
    return time


def _envelope(asked: Specification) -> evaluation_pb2.Envelope:
    return evaluation_pb2.Envelope(
        model=_ref(asked.model),
        model_numerics=asked.model.numerics,
        extractor=_ref(asked.extractor),
        extractor_numerics=asked.extractor.numerics,
        classifier=_ref(asked.classifier),
        classifier_numerics=asked.classifier.numerics,
        reference=evaluation_pb2.Reference(
            dataset=asked.dataset, training_split=asked.training_split, held_out_split=asked.held_out_split
        ),
        dataset_digest=asked.dataset_digest,
        training_rows=asked.training_rows,
        held_out_rows=asked.held_out_rows,
        count=asked.count,
        seed=asked.seed,
        parameters=_parameters(asked.parameters),
        panels=[PANELS[panel] for panel in asked.panels],
        gates=asked.gates,
        classes=asked.classes,
        conditional=asked.conditional,
        code_version=asked.code_version,
    )


def _ref(model: PinnedModel) -> model_pb2.ModelRef:
    return model_pb2.ModelRef(name=model.name, version=model.version, digest=model.digest)


def _parameters(parameters: Parameters) -> sampling_pb2.Parameters:
    given = {field.name: getattr(parameters, field.name) for field in fields(parameters)}
    return sampling_pb2.Parameters(**{name: value for name, value in given.items() if value is not None})


def _metric(metric: Metric) -> evaluation_pb2.Metric:
    message = evaluation_pb2.Metric(
        name=metric.name,
        panel=PANELS[metric.panel],
        value=metric.value,
        interval=_range(metric.interval),
        verdict=_VERDICTS[metric.verdict],
        decides=metric.decides,
        better=metric.better,
        method=metric.method,
        note=metric.note,
        samples=metric.samples,
        classes=[_class_value(each) for each in metric.classes],
    )
    if metric.null is not None:
        null = metric.null
        message.null.CopyFrom(
            evaluation_pb2.Null(mean=null.mean, range=_range(null.range), draws=null.draws, rows=null.rows)
        )
    return message


def _class_value(value: ClassValue) -> evaluation_pb2.ClassValue:
    return evaluation_pb2.ClassValue(
        class_name=value.class_name,
        value=value.value,
        interval=_range(value.interval),
        null_mean=value.null_mean,
        verdict=_VERDICTS[value.verdict],
    )


def _range(interval: Interval | None) -> model_pb2.ValueRange | None:
    return None if interval is None else model_pb2.ValueRange(min=interval[0], max=interval[1])


# FOLDED FROM service.rpc.evaluation_message:
# ListEvaluations: one page of a caller's evaluations, and a token for the next.


_PAGE_SIZE, _PAGE_SIZE_MAX = 100, 1000
_PAGE_BYTES = 1 << 20  # of evaluations in one answer: a message holds them all
_FILTER_DIGITS = 16
_NOT_OURS = "is not one this gateway gave for this filter; begin again without it"

_STATES = {number: state for state, number in STATES.items()}


async def list_evaluations(
    kept: Evaluations, subject: str, request: evaluation_pb2.ListEvaluationsRequest
) -> evaluation_pb2.ListEvaluationsResponse:
    """Answer one page.

    It ends before `page_size` evaluations where they come to more than 1 MiB, but holds one however large.

    Raises:
        InvalidRequest: a field is wrong; names every one.
    """
    after = _read(request)
    size = min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MAX)
    states = {_STATES[each] for each in request.states}
    try:
        records = await kept.list(subject, states=states, model=request.model, after=after, limit=size + 1)
    except UnknownEvaluation as error:  # the last one of the page before is gone
        raise InvalidRequest(
            (Violation(field="page_token", description="is of an evaluation that is gone"),)
        ) from error
    messages = [record_to_message(each, with_metrics=False) for each in records[:size]]
    fitting = max(1, sum(end <= _PAGE_BYTES for end in accumulate(each.ByteSize() for each in messages)))
    told = messages[:fitting]
    token = _token(request, told[-1].id) if len(records) > len(told) else ""
    return evaluation_pb2.ListEvaluationsResponse(evaluations=told, next_page_token=token)


def _read(request: evaluation_pb2.ListEvaluationsRequest) -> str:
    """The id behind which the page begins, once every field is checked."""
    wrong = []
    if request.page_size < 0:
        wrong.append(Violation(field="page_size", description=f"must not be negative, got {request.page_size}"))
    for k, number in enumerate(request.states):
        if number not in _STATES:
            wrong.append(Violation(field=f"states[{k}]", description=f"{number} is not a State"))
    after = ""
    try:
        if request.page_token:
            told = base64.b64decode(request.page_token.encode(), altchars=b"-_", validate=True).decode()
            of, _, after = told.partition(" ")
            if of != _filter(request) or not after.isalnum():
                raise ValueError(of)
    except (binascii.Error, ValueError):
        wrong.append(Violation(field="page_token", description=_NOT_OURS))
    if wrong:
        raise InvalidRequest(tuple(wrong))
    return after


def _token(request: evaluation_pb2.ListEvaluationsRequest, last: str) -> str:
    return base64.urlsafe_b64encode(f"{_filter(request)} {last}".encode()).decode()


def _filter(request: evaluation_pb2.ListEvaluationsRequest) -> str:
    """A few digits of what is filtered by, so that a token cannot go on with another list."""
    asked = evaluation_pb2.ListEvaluationsRequest(states=sorted(set(request.states)), model=request.model)
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()[:_FILTER_DIGITS]
