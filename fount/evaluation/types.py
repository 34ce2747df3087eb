"""Evaluations as the client returns them: frozen values, decoded from messages, and written as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import datetime
from typing import Any

from fount.sampling.decode import decode, enum_name, pair, utc
from fount.sampling.types import ModelId
from fount.v1 import evaluation_pb2

__all__ = [
    "PANELS", "STATES", "ClassMetricInfo", "EnvelopeInfo", "EvaluationInfo", "EvaluationReport", "GateInfo",
    "MetricInfo", "NullInfo", "PanelInfo", "ProgressInfo", "evaluation_info", "evaluation_json",
]  # fmt: skip


Interval = tuple[float, float]

PANELS = {
    "realism": evaluation_pb2.PANEL_REALISM,
    "diversity": evaluation_pb2.PANEL_DIVERSITY,
    "memorisation": evaluation_pb2.PANEL_MEMORISATION,
    "label-fidelity": evaluation_pb2.PANEL_LABEL_FIDELITY,
}
"""The panels of an evaluation, in the order of the report."""

STATES = {
    "queued": evaluation_pb2.Evaluation.STATE_QUEUED,
    "running": evaluation_pb2.Evaluation.STATE_RUNNING,
    "succeeded": evaluation_pb2.Evaluation.STATE_SUCCEEDED,
    "failed": evaluation_pb2.Evaluation.STATE_FAILED,
    "cancelled": evaluation_pb2.Evaluation.STATE_CANCELLED,
}
"""The states of an evaluation; the last three are final."""

_FINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True)
class NullInfo:
    """The null distribution of a metric: its value for real rows in place of samples.

    Attributes:
        range: the range of 95 % of such values.
        draws: how many were drawn; 0: known in closed form, or from one interval.
        rows: how many real rows replaced the samples.
    """

    mean: float
    range: Interval
    draws: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class ClassMetricInfo:
    """A metric within one class, as in `MetricInfo`; the value is None when the class has too few samples or rows."""

    class_name: str
    value: float | None
    interval: Interval | None
    null_mean: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """One metric with its interval and its null distribution.

    Attributes:
        name: its name in gates.
        value: the point estimate; None when it could not be computed, and `note` says why.
        interval: the 95 % interval; None when there is none.
        null: its value for real rows; None when it has none.
        verdict: "like-real", "near-real", "worse", "not-measurable" or "none".
        decides: whether it determines the panel's verdict.
        better: "lower", "higher", or "null": the nearer to the value of real rows, the better.
        method: how it was estimated, with sizes and source.
        note: what limits its meaning; empty when nothing does.
        samples: the number of samples it was computed on.
        classes: its values within each class; empty when it is not computed by class.
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
    """The verdict of one panel: the worst of its deciding metrics, with a sentence that explains it.

    Attributes:
        note: what to know about the real rows it rests on, such as leaked ones; empty: nothing.
    """

    panel: str
    verdict: str
    sentence: str
    note: str


@dataclass(frozen=True, kw_only=True)
class GateInfo:
    """The outcome of a gate; a condition on a value that could not be computed does not hold, and `note` says why."""

    gate: str
    passed: bool
    actual: float | None
    note: str


@dataclass(frozen=True, kw_only=True)
class ProgressInfo:
    """The progress of an evaluation.

    Attributes:
        stage: the current stage in a word or two; empty before it started.
        total: number of steps; 0 while it is unknown.
        updated: when the runner last reported, UTC; None before it started.
    """

    stage: str
    done: int
    total: int
    updated: datetime | None


@dataclass(frozen=True, kw_only=True)
class EnvelopeInfo:
    """Everything a result depends on. Equal envelopes give the same report but for times and ids.

    Attributes:
        extractor: the model whose features are compared.
        classifier: the model whose labels are compared.
        training_split: the split the generator may have been trained on.
        held_out_split: the split it was not trained on.
        gates: the conditions, as they were given.
        classes: class names by id.
        conditional: whether samples are drawn by label.
        code_version: the version of Fount.
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
    """An evaluation job: its request, progress and results.

    Attributes:
        state: "queued", "running", "succeeded", "failed" or "cancelled".
        envelope: what was resolved when it was created.
        metrics: those known so far, in the order of the report; those of a running evaluation may still change.
        panels: the verdicts known so far, one a panel.
        gates: the outcomes, in the order of the request; empty until it has succeeded.
        gates_passed: whether every gate passed; None until it has succeeded.
        started: when a runner first started it, UTC; None when none has.
        ended: when it ended; None when it has not.
        expires: when it is removed, with its report; None until it has ended.
        report_bytes: size of its report; 0 until it has succeeded.
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
        """Whether it has ended, successfully or not."""
        return self.state in _FINAL

    def metric(self, name: str) -> MetricInfo:
        """Return the metric of a name; a KeyError lists those that are known so far."""
        metrics = {each.name: each for each in self.metrics}
        if name not in metrics:
            raise KeyError(f"There is no metric {name!r}; there are: {', '.join(metrics) or 'none yet'}.")
        return metrics[name]


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """A report as one UTF-8 file.

    It is redacted, without nearest training rows, if the grant view-training-neighbours is missing.
    """

    data: bytes = field(repr=False)
    redacted: bool


def evaluation_info(evaluation: evaluation_pb2.Evaluation) -> EvaluationInfo:
    """Decode an evaluation; enum values that only a newer server knows become numbers."""
    progress = evaluation.progress
    return decode(
        EvaluationInfo,
        evaluation,
        state=enum_name(evaluation_pb2.Evaluation.State, "STATE_", evaluation.state),
        envelope=_envelope(evaluation.envelope),
        progress=decode(ProgressInfo, progress, updated=utc(progress, "update_time")),
        metrics=tuple(map(_metric, evaluation.metrics)),
        panels=tuple(
            decode(PanelInfo, each, panel=_panel(each.panel), verdict=_verdict(each.verdict))
            for each in evaluation.panels
        ),
        gates=tuple(decode(GateInfo, each) for each in evaluation.gates),
        created=utc(evaluation, "create_time"),
        started=utc(evaluation, "start_time"),
        ended=utc(evaluation, "end_time"),
        expires=utc(evaluation, "expire_time"),
        message=evaluation,
    )


def _envelope(envelope: evaluation_pb2.Envelope) -> EnvelopeInfo:
    return decode(
        EnvelopeInfo,
        envelope,
        dataset=envelope.reference.dataset,
        training_split=envelope.reference.training_split,
        held_out_split=envelope.reference.held_out_split,
        parameters={each.name: value for each, value in envelope.parameters.ListFields()},
        panels=tuple(map(_panel, envelope.panels)),
    )


def _metric(metric: evaluation_pb2.Metric) -> MetricInfo:
    return decode(
        MetricInfo,
        metric,
        panel=_panel(metric.panel),
        null=decode(NullInfo, metric.null, range=pair(metric.null.range)) if metric.HasField("null") else None,
        verdict=_verdict(metric.verdict),
        classes=tuple(decode(ClassMetricInfo, each, verdict=_verdict(each.verdict)) for each in metric.classes),
    )


def _panel(number: int) -> str:
    return enum_name(evaluation_pb2.Panel, "PANEL_", number)


def _verdict(number: int) -> str:
    return enum_name(evaluation_pb2.Verdict, "VERDICT_", number) if number else "none"


def evaluation_json(info: EvaluationInfo) -> dict[str, Any]:
    """Return an evaluation as JSON values: times in ISO 8601, and null for numbers that are not finite."""
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
