"""From the messages of an evaluation to the values a client gets, and from those to JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import timestamp_pb2

from fount.evaluation.types import (
    ClassMetricInfo,
    EnvelopeInfo,
    EvaluationInfo,
    GateInfo,
    Interval,
    MetricInfo,
    NullInfo,
    PanelInfo,
    ProgressInfo,
)
from fount.sampling.types import ModelId
from fount.v1 import evaluation_pb2, model_pb2

__all__ = ["evaluation_info", "evaluation_json"]


def evaluation_info(evaluation: evaluation_pb2.Evaluation) -> EvaluationInfo:
    """Read an evaluation from its message; enum values a newer server may have are given by number."""
    return EvaluationInfo(
        id=evaluation.id,
        state=_name(evaluation_pb2.Evaluation.State, "STATE_", evaluation.state),
        state_reason=evaluation.state_reason,
        envelope=_envelope(evaluation.envelope),
        progress=ProgressInfo(
            stage=evaluation.progress.stage,
            done=evaluation.progress.done,
            total=evaluation.progress.total,
            updated=_moment(evaluation.progress, "update_time"),
        ),
        metrics=tuple(_metric(each) for each in evaluation.metrics),
        panels=tuple(
            PanelInfo(panel=_panel(each.panel), verdict=_verdict(each.verdict), sentence=each.sentence)
            for each in evaluation.panels
        ),
        gates=tuple(
            GateInfo(gate=each.gate, passed=each.passed, actual=_optional(each, "actual"), note=each.note)
            for each in evaluation.gates
        ),
        gates_passed=evaluation.gates_passed if evaluation.HasField("gates_passed") else None,
        created=_moment(evaluation, "create_time"),
        started=_moment(evaluation, "start_time"),
        ended=_moment(evaluation, "end_time"),
        expires=_moment(evaluation, "expire_time"),
        report_bytes=evaluation.report_bytes,
        request_id=evaluation.request_id,
        message=evaluation,
    )


def evaluation_json(info: EvaluationInfo) -> dict[str, Any]:
    """An evaluation as JSON has it: times as ISO 8601, and null for what is no finite number."""
    return {name: _plain(value) for name, value in vars(info).items() if name != "message"}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    return value


def _envelope(envelope: evaluation_pb2.Envelope) -> EnvelopeInfo:
    return EnvelopeInfo(
        model=_model(envelope.model),
        model_numerics=envelope.model_numerics,
        extractor=_model(envelope.extractor),
        extractor_numerics=envelope.extractor_numerics,
        classifier=_model(envelope.classifier),
        classifier_numerics=envelope.classifier_numerics,
        dataset=envelope.reference.dataset,
        dataset_digest=envelope.dataset_digest,
        training_split=envelope.reference.training_split,
        held_out_split=envelope.reference.held_out_split,
        training_rows=envelope.training_rows,
        held_out_rows=envelope.held_out_rows,
        count=envelope.count,
        seed=envelope.seed,
        parameters={each.name: value for each, value in envelope.parameters.ListFields()},
        panels=tuple(map(_panel, envelope.panels)),
        gates=tuple(envelope.gates),
        classes=tuple(envelope.classes),
        conditional=envelope.conditional,
        code_version=envelope.code_version,
    )


def _metric(metric: evaluation_pb2.Metric) -> MetricInfo:
    null = metric.null
    return MetricInfo(
        name=metric.name,
        panel=_panel(metric.panel),
        value=_optional(metric, "value"),
        interval=_interval(metric),
        null=NullInfo(mean=null.mean, range=(null.range.min, null.range.max), draws=null.draws, rows=null.rows)
        if metric.HasField("null")
        else None,
        verdict=_verdict(metric.verdict),
        decides=metric.decides,
        better=metric.better,
        method=metric.method,
        note=metric.note,
        samples=metric.samples,
        classes=tuple(
            ClassMetricInfo(
                class_name=each.class_name,
                value=_optional(each, "value"),
                interval=_interval(each),
                null_mean=_optional(each, "null_mean"),
                verdict=_verdict(each.verdict),
            )
            for each in metric.classes
        ),
    )


def _interval(message: evaluation_pb2.Metric | evaluation_pb2.ClassValue) -> Interval | None:
    return (message.interval.min, message.interval.max) if message.HasField("interval") else None


def _optional(message: Any, name: str) -> float | None:
    return float(getattr(message, name)) if message.HasField(name) else None


def _moment(message: Any, name: str) -> datetime | None:
    stamp: timestamp_pb2.Timestamp = getattr(message, name)
    return stamp.ToDatetime(tzinfo=UTC) if message.HasField(name) else None


def _model(ref: model_pb2.ModelRef) -> ModelId:
    return ModelId(name=ref.name, version=ref.version, digest=ref.digest)


def _panel(number: int) -> str:
    return _name(evaluation_pb2.Panel, "PANEL_", number)


def _verdict(number: int) -> str:
    return _name(evaluation_pb2.Verdict, "VERDICT_", number) if number else "none"


def _name(enum: Any, prefix: str, number: int) -> str:
    value = enum.DESCRIPTOR.values_by_number.get(number)
    return str(number) if value is None else str(value.name).removeprefix(prefix).lower().replace("_", "-")
