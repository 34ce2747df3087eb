"""An evaluation as a client sees it: frozen values; `fount.evaluation.types` makes them of messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import timestamp_pb2

from fount.sampling.types import ModelId
from fount.v1 import evaluation_pb2, model_pb2

__all__ = [
    "PANELS",
    "STATES",
    "ClassMetricInfo",
    "EnvelopeInfo",
    "EvaluationInfo",
    "EvaluationReport",
    "GateInfo",
    "MetricInfo",
    "NullInfo",
    "PanelInfo",
    "ProgressInfo",
    "evaluation_info",
    "evaluation_json",
]


Interval = tuple[float, float]

PANELS = {
    "realism": evaluation_pb2.PANEL_REALISM,
    "diversity": evaluation_pb2.PANEL_DIVERSITY,
    "memorisation": evaluation_pb2.PANEL_MEMORISATION,
    "label-fidelity": evaluation_pb2.PANEL_LABEL_FIDELITY,
}
"""The questions there are, in the order of the report."""

STATES = {
    "queued": evaluation_pb2.Evaluation.STATE_QUEUED,
    "running": evaluation_pb2.Evaluation.STATE_RUNNING,
    "succeeded": evaluation_pb2.Evaluation.STATE_SUCCEEDED,
    "failed": evaluation_pb2.Evaluation.STATE_FAILED,
    "cancelled": evaluation_pb2.Evaluation.STATE_CANCELLED,
}
"""Where an evaluation can be; the last three are final."""

_FINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True)
class NullInfo:
    """What real rows score in the place of samples.

    Attributes:
        mean: over the draws of real rows.
        range: where 95 % of such values lie.
        draws: how many were taken; 0: known in closed form, or from one interval.
        rows: how many real rows stood in the place of samples.
    """

    mean: float
    range: Interval
    draws: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class ClassMetricInfo:
    """A metric within one class.

    Attributes:
        class_name: the class.
        value: the point estimate; None when the class has too few samples or rows.
        interval: the 95 % interval; None when there is none.
        null_mean: the same for real rows; None when it has none.
        verdict: as in `MetricInfo`.
    """

    class_name: str
    value: float | None
    interval: Interval | None
    null_mean: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """One number with its interval, and with what real data scores.

    Attributes:
        name: what gates call it.
        panel: the question it belongs to.
        value: the point estimate; None when it could not be computed, and `note` says why.
        interval: the 95 % interval; None when there is none.
        null: the same for real rows; None when it has none.
        verdict: "like-real", "near-real", "worse" or "none".
        decides: whether the panel's verdict rests on it.
        better: "lower", "higher", or "null" for as near to the real value as can be.
        method: how it was estimated, with sizes and source.
        note: what a reader must know beside the number; empty when nothing.
        samples: how many samples it is of.
        classes: the same within each class; empty when it is not taken by class.
    """

    name: str
    panel: str
    value: float | None
    interval: Interval | None
    null: NullInfo | None
    verdict: str
    decides: bool
    better: str
    method: str
    note: str
    samples: int
    classes: tuple[ClassMetricInfo, ...]


@dataclass(frozen=True, kw_only=True)
class PanelInfo:
    """The answer to one question: the worst verdict of its deciding metrics, and a sentence for people."""

    panel: str
    verdict: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class GateInfo:
    """What became of a gate.

    Attributes:
        gate: the condition as it was given.
        passed: whether it holds; one on a number that could not be computed does not.
        actual: the number it looked at; None when there is none, and `note` says why.
        note: why there is no number; empty when there is.
    """

    gate: str
    passed: bool
    actual: float | None
    note: str


@dataclass(frozen=True, kw_only=True)
class ProgressInfo:
    """How far an evaluation is.

    Attributes:
        stage: a word or two for people; empty before it began.
        done: steps done.
        total: how many there are; 0 while that is not known.
        updated: when the runner last gave a sign of life, UTC; None before it began.
    """

    stage: str
    done: int
    total: int
    updated: datetime | None


@dataclass(frozen=True, kw_only=True)
class EnvelopeInfo:
    """All that a result depends on. Equal ones give the same report but for times and ids.

    Attributes:
        model: the generator.
        model_numerics: its numerics id.
        extractor: the model whose features are compared.
        extractor_numerics: its numerics id.
        classifier: the model whose labels are compared.
        classifier_numerics: its numerics id.
        dataset: the data set's name.
        dataset_digest: the digest of its rows.
        training_split: what the generator may have seen.
        held_out_split: what it has not.
        training_rows: rows of the first.
        held_out_rows: rows of the second.
        count: how many samples are drawn.
        seed: what keys them.
        parameters: those of the draw, by name.
        panels: the questions, in the order of the report.
        gates: the conditions, as they were given.
        classes: class names by id.
        conditional: whether samples were asked for by label.
        code_version: Fount's.
    """

    model: ModelId
    model_numerics: str
    extractor: ModelId
    extractor_numerics: str
    classifier: ModelId
    classifier_numerics: str
    dataset: str
    dataset_digest: str
    training_split: str
    held_out_split: str
    training_rows: int
    held_out_rows: int
    count: int
    seed: int
    parameters: Mapping[str, float]
    panels: tuple[str, ...]
    gates: tuple[str, ...]
    classes: tuple[str, ...]
    conditional: bool
    code_version: str


@dataclass(frozen=True, kw_only=True)
class EvaluationInfo:
    """A job: what was asked, how far it is, what was found.

    Attributes:
        id: what names it.
        state: "queued", "running", "succeeded", "failed" or "cancelled".
        state_reason: one sentence; empty when there is nothing to say.
        envelope: what was resolved when it was created.
        progress: how far it is.
        metrics: those known so far, in the order of the report; those of a running evaluation may still change.
        panels: the verdicts known so far, one a panel.
        gates: the outcomes, in the order of the request; empty until it has succeeded.
        gates_passed: whether every gate passed; None until it has succeeded.
        created: when it was asked for, UTC.
        started: when a runner first took it up; None when none has.
        ended: when it ended; None when it has not.
        expires: when it is removed, with its report; None until it has ended.
        report_bytes: how much room its report takes; 0 until it has succeeded.
        request_id: the request's.
        message: the message itself.
    """

    id: str
    state: str
    state_reason: str
    envelope: EnvelopeInfo
    progress: ProgressInfo
    metrics: tuple[MetricInfo, ...]
    panels: tuple[PanelInfo, ...]
    gates: tuple[GateInfo, ...]
    gates_passed: bool | None
    created: datetime | None
    started: datetime | None
    ended: datetime | None
    expires: datetime | None
    report_bytes: int
    request_id: str
    message: evaluation_pb2.Evaluation = field(repr=False, compare=False)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in _FINAL

    def metric(self, name: str) -> MetricInfo:
        """The metric of a name.

        Raises:
            KeyError: it is not known, or not yet.
        """
        for each in self.metrics:
            if each.name == name:
                return each
        raise KeyError(f"no metric {name!r}; there are: {', '.join(each.name for each in self.metrics) or 'none yet'}")


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """A report as one file.

    Attributes:
        data: the file, UTF-8.
        redacted: whether nearest training rows were left out, for want of the grant view-training-neighbours.
    """

    data: bytes = field(repr=False)
    redacted: bool


# FOLDED FROM fount.evaluation.types:
# From the messages of an evaluation to the values a client gets, and from those to JSON.


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
