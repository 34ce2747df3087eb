"""A `Record` as the message that clients see."""

from __future__ import annotations

from dataclasses import fields

from google.protobuf.timestamp_pb2 import Timestamp

from fount.v1 import evaluation_pb2, model_pb2, sampling_pb2
from service.domain import Parameters
from service.evaluation.jobs.record import Record, State
from service.evaluation.results import ClassValue, Metric, Panel, Verdict
from service.evaluation.specification import PinnedModel, Specification
from service.evaluation.statistics.estimate import Interval

__all__ = ["PANELS", "STATES", "record_to_message"]

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


def _time(unix_s: float) -> Timestamp | None:
    """A time; None, which leaves the field unset, of 0."""
    if not unix_s:
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
