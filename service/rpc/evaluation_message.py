"""Records as messages: one evaluation, and one page of a list of evaluations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from fount.v1 import evaluation_pb2, model_pb2, sampling_pb2
from service.errors import InvalidRequest, UnknownEvaluation, Violation
from service.evaluation.record import Record, State
from service.evaluation.results import Metric, Panel, Verdict
from service.evaluation.specification import Specification
from service.evaluation.statistics.intervals import Interval
from service.rpc.fields import Violations, raise_violations, reference_to_message
from service.rpc.paging import count_fitting, decode_token, encode_token, read_page_size

if TYPE_CHECKING:
    from service.evaluation.jobs.evaluations import Evaluations  # loads database libraries

__all__ = ["PANELS", "STATES", "list_evaluations", "record_to_message"]

PANELS = {panel: evaluation_pb2.Panel.Value(f"PANEL_{panel.name}") for panel in Panel}
"""The number of each panel."""

STATES = {state: evaluation_pb2.Evaluation.State.Value(f"STATE_{state.name}") for state in State}
"""The number of each state."""

_STATES = {number: state for state, number in STATES.items()}
_VERDICTS = {
    verdict: evaluation_pb2.Verdict.Value(f"VERDICT_{'UNSPECIFIED' if verdict is Verdict.NONE else verdict.name}")
    for verdict in Verdict
}
_FILTER_DIGITS = 16


def record_to_message(record: Record, *, with_metrics: bool = True) -> evaluation_pb2.Evaluation:
    """Convert a record; lists leave the metrics out."""
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
        message.panels.add(
            panel=PANELS[panel.panel], verdict=_VERDICTS[panel.verdict], sentence=panel.sentence, note=panel.note
        )
    for gate in record.gates:
        message.gates.add(gate=gate.gate, passed=gate.passed, actual=gate.actual, note=gate.note)
    if record.state is State.SUCCEEDED and len(record.gates) == len(record.specification.gates):
        message.gates_passed = all(gate.passed for gate in record.gates)
    return message


async def list_evaluations(
    evaluations: Evaluations,
    subject: str,
    request: evaluation_pb2.ListEvaluationsRequest,
    explained: Callable[[Record], Record],
) -> evaluation_pb2.ListEvaluationsResponse:
    """Answer one page of a list, and a token for the next; `explained` adds why evaluations wait.

    The page ends before `page_size` evaluations if they exceed 1 MiB; it holds one evaluation however large.

    Raises:
        InvalidRequest: fields are wrong; names every one.
    """
    size, after = _check_list(request)
    states = {_STATES[each] for each in request.states}
    try:
        records = await evaluations.list(subject, states=states, model=request.model, after=after, limit=size + 1)
    except UnknownEvaluation as error:  # the last one of the page before was deleted
        description = "names an evaluation that does not exist any more"
        raise InvalidRequest((Violation(field="page_token", description=description),)) from error
    messages = [record_to_message(explained(each), with_metrics=False) for each in records[:size]]
    page = messages[: count_fitting(each.ByteSize() for each in messages)]
    token = encode_token(f"{_filter_digest(request)} {page[-1].id}") if len(records) > len(page) else ""
    return evaluation_pb2.ListEvaluationsResponse(evaluations=page, next_page_token=token)


def _check_list(request: evaluation_pb2.ListEvaluationsRequest) -> tuple[int, str]:
    """Check every field; return the page size, and the id after which the page begins, empty for the first page."""
    violations, after = Violations(), ""
    size = read_page_size(request.page_size, violations)
    for k, number in enumerate(request.states):
        if number not in _STATES:
            violations.add(f"states[{k}]", f"{number} is not a State")
    try:
        if request.page_token:
            filtered_by, _, after = decode_token(request.page_token).partition(" ")
            if filtered_by != _filter_digest(request) or not after.isalnum():
                raise ValueError(filtered_by)
    except ValueError:
        violations.add("page_token", "is not one that this gateway returned for this filter; start again without it")
    raise_violations(violations)
    return size, after


def _filter_digest(request: evaluation_pb2.ListEvaluationsRequest) -> str:
    """Digest the filter, so that a token is not used with another one."""
    filtered = evaluation_pb2.ListEvaluationsRequest(states=sorted(set(request.states)), model=request.model)
    return hashlib.sha256(filtered.SerializeToString(deterministic=True)).hexdigest()[:_FILTER_DIGITS]


def _time(unix_s: float | None) -> Timestamp | None:
    if unix_s is None:
        return None
    time = Timestamp()
    time.FromNanoseconds(round(unix_s * 1e9))
    return time


def _envelope(spec: Specification) -> evaluation_pb2.Envelope:
    return evaluation_pb2.Envelope(
        model=reference_to_message(spec.model),
        model_numerics=spec.model.numerics,
        extractor=reference_to_message(spec.extractor),
        extractor_numerics=spec.extractor.numerics,
        classifier=reference_to_message(spec.classifier),
        classifier_numerics=spec.classifier.numerics,
        reference=evaluation_pb2.Reference(
            dataset=spec.dataset, training_split=spec.training_split, held_out_split=spec.held_out_split
        ),
        dataset_digest=spec.dataset_digest,
        training_rows=spec.training_rows,
        held_out_rows=spec.held_out_rows,
        count=spec.count,
        seed=spec.seed,
        parameters=sampling_pb2.Parameters(**asdict(spec.parameters)),  # None is unset
        panels=[PANELS[panel] for panel in spec.panels],
        gates=spec.gates,
        classes=spec.classes,
        conditional=spec.conditional,
        code_version=spec.code_version,
    )


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
    )
    for each in metric.classes:
        message.classes.add(
            class_name=each.class_name,
            value=each.value,
            interval=_range(each.interval),
            null_mean=each.null_mean,
            verdict=_VERDICTS[each.verdict],
        )
    if null := metric.null:
        null_range = _range(null.range)
        message.null.CopyFrom(evaluation_pb2.Null(mean=null.mean, range=null_range, draws=null.draws, rows=null.rows))
    return message


def _range(interval: Interval | None) -> model_pb2.ValueRange | None:
    return None if interval is None else model_pb2.ValueRange(min=interval[0], max=interval[1])
