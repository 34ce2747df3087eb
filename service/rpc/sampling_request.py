"""Read a SampleRequest: every field is checked against the model it names, and every wrong one is reported.

A request enters; a `SampleSpec` leaves, which the scheduler can work on.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np

from fount.v1 import sampling_pb2
from service.catalog import Catalog, LabelSource
from service.catalog.conditions import DrawnLabels, GivenLabels, NoLabels, OneLabel
from service.domain import Dtype, Encoding, Operation, Parameters, Priority, ServedModel, Target
from service.errors import InvalidRequest, NotReady, Retired
from service.rpc.fields import Violations, label_list, raise_violations, read_label, read_parameters, read_weights
from service.rpc.given_request import read_encoding
from service.rpc.sample_given import GIVEN_FIELDS, GivenValues, operation_of, read_given_values

__all__ = ["SampleSpec", "read_sample_request"]

_INDEX_LIMIT = 2**64
_PRIORITIES = frozenset(sampling_pb2.Priority.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleSpec:
    """A checked request.

    Attributes:
        model: what to draw from.
        target: its workers.
        seed: the request's, or one drawn here.
        start_index, count: which samples.
        labels: where their labels come from.
        given: values that they are decoded from, or keep; None: they are drawn.
        parameters: with the defaults of the model card filled in.
        encoding: how samples become bytes.
        priority: interactive samples go before bulk.
        reports_progress: whether the stream reports what is done between two steps.
        stop: texts end before its first occurrence after the prefix, UTF-8; None: nowhere.
    """

    model: ServedModel
    target: Target
    seed: int
    start_index: int
    count: int
    labels: LabelSource
    given: GivenValues | None
    parameters: Parameters
    encoding: Encoding
    priority: Priority
    reports_progress: bool
    stop: bytes | None

    @property
    def operation(self) -> Operation:
        """SAMPLE, DECODE of given latents, or TRANSLATE of given images."""
        return self.given.operation if self.given else Operation.SAMPLE

    @property
    def prefix(self) -> bytes | None:
        """The beginning of every sample; None: it is drawn."""
        return self.given.prefix or None if self.given else None

    @property
    def dtype(self) -> Dtype:
        """What workers send: floats only for float samples."""
        return Dtype.FLOAT32 if self.encoding is Encoding.FLOAT32 else Dtype.UINT8


def read_sample_request(request: sampling_pb2.SampleRequest, catalog: Catalog) -> SampleSpec:
    """Check a request against the model it names.

    Raises:
        InvalidRequest: some field is wrong; names every one.
        UnknownName: the model, its version, or a label does not exist, and nothing else is wrong.
        Retired: the digest, the numerics or the operation is not served.
        NotReady: no worker of the model is ready.
    """
    wrong, reference = Violations(), request.model
    _check_indices(request, wrong)
    try:
        entry = catalog.find(reference.name, reference.version, reference.digest)
    except InvalidRequest as error:
        raise_violations([*error.violations, *wrong])
        raise
    operation = operation_of(request.condition, entry.model.operations if entry.model else frozenset())
    if entry.model and operation not in entry.model.operations:
        catalog.choose(entry, operation)  # raises Retired: other fields mean nothing to such a model
    target, refusal = None, None
    try:
        target, model = catalog.choose(entry, operation, digest=reference.digest, numerics=request.numerics)
    except (NotReady, Retired) as error:
        if entry.model is None:
            raise_violations(wrong)
            raise
        model, refusal = entry.model, error  # raised only when no field is wrong
    encoding = _read_encoding(request, operation, model, wrong)
    parameters = _read_parameters(request, operation, model, wrong)
    labels = _read_condition(request, model, wrong)
    given = read_given_values(request.condition, operation, request.count, model, wrong)
    stop = _read_stop(request, model, wrong)
    if request.count > model.max_count:
        wrong.add("count", f"must be at most {model.max_count}, got {request.count}")
    if request.priority not in _PRIORITIES:
        wrong.add("priority", f"{request.priority} is not a Priority")
    raise_violations(wrong)
    if target is None:
        raise refusal or NotReady(f"{entry.name} {entry.version} is not ready: {entry.reason}")
    is_interactive = request.priority == sampling_pb2.PRIORITY_INTERACTIVE
    return SampleSpec(
        model=model,
        target=target,
        seed=request.seed if request.HasField("seed") else secrets.randbits(64),
        start_index=request.start_index,
        count=request.count,
        labels=labels,
        given=given,
        parameters=parameters,
        encoding=encoding,
        priority=Priority.INTERACTIVE if is_interactive else Priority.BULK,
        reports_progress=request.progress,
        stop=stop,
    )


def _check_indices(request: sampling_pb2.SampleRequest, wrong: Violations) -> None:
    if request.count == 0:
        wrong.add("count", "must be at least 1")
    if request.start_index + request.count > _INDEX_LIMIT:
        sum_ = f"{request.start_index} + {request.count}"
        wrong.add("start_index", f"start_index + count must be at most 2^64, got {sum_}")


def _read_encoding(
    request: sampling_pb2.SampleRequest, operation: Operation, model: ServedModel, wrong: Violations
) -> Encoding:
    if operation is Operation.DECODE:
        return read_encoding(request.encoding, "encoding", model, wrong)
    default = model.default_encoding
    encoding = request.encoding or default
    if encoding in model.encodings:
        return Encoding(encoding)
    able = ", ".join(each.name for each in sorted(model.encodings)) or "none"
    name = Encoding(encoding).name if encoding in list(Encoding) else str(encoding)
    wrong.add("encoding", f"the model cannot give {name}; it gives {able}")
    return default


def _read_parameters(
    request: sampling_pb2.SampleRequest, operation: Operation, model: ServedModel, wrong: Violations
) -> Parameters:
    if operation.draws:
        return read_parameters(request.parameters, "parameters", model, wrong)
    if request.HasField("parameters"):
        wrong.add("parameters", "shape a draw, and latents are given; leave parameters out")
    return Parameters()


def _read_condition(request: sampling_pb2.SampleRequest, model: ServedModel, wrong: Violations) -> LabelSource:
    if not request.HasField("condition"):
        return _of_prior(model, wrong)
    condition = request.condition
    has_others = any(field.name in GIVEN_FIELDS for field, _ in condition.ListFields())
    kind = condition.WhichOneof("kind")
    if not model.labels:
        if kind or not has_others:
            field = f"condition.{kind}" if has_others else "condition"
            wrong.add(field, f"{model.key.name} is unconditional; leave the {field.rpartition('.')[2]} out")
        return NoLabels()
    match kind:
        case "label":
            label = read_label(condition.label, "condition.label", model.key.name, model.labels, wrong)
            return OneLabel(label=label)
        case "labels":
            return _read_labels(request, model, wrong)
        case "mixture":
            return _read_mixture(condition.mixture, model, wrong)
    if has_others:
        return _of_prior(model, wrong)
    wrong.add("condition", "set label, labels or mixture, or leave the condition out for the model's prior")
    return NoLabels()


def _of_prior(model: ServedModel, wrong: Violations) -> LabelSource:
    if model.labels and not model.prior:  # of a model that translates, labels are directions
        wrong.add("condition.label", f"is missing; {model.key.name} has {label_list(model.labels)}")
        return NoLabels()
    return DrawnLabels.of_weights(model.prior) if model.labels else NoLabels()


def _read_stop(request: sampling_pb2.SampleRequest, model: ServedModel, wrong: Violations) -> bytes | None:
    if not request.HasField("stop"):
        return None
    stop, most = request.stop.encode(), model.max_text_bytes
    if not model.is_text:
        wrong.add("stop", f"samples of {model.key.name} are no texts; leave stop out")
    elif not stop:
        wrong.add("stop", "must not be empty; leave it out to end texts nowhere")
    elif len(stop) > most:
        wrong.add("stop", f"must be at most the {most} bytes of a text of {model.key.name}, got {len(stop)}")
    return stop


def _read_labels(request: sampling_pb2.SampleRequest, model: ServedModel, wrong: Violations) -> LabelSource:
    given, field = request.condition.labels.ids, "condition.labels.ids"
    if len(given) != request.count:
        wrong.add(field, f"must hold one label a sample: count is {request.count}, got {len(given)}")
    if len(given) > model.max_labels:
        wrong.add(field, f"must hold at most {model.max_labels} labels, got {len(given)}; send several requests")
        return NoLabels()
    ids = np.asarray(given, np.uint32)
    for k in np.flatnonzero(ids >= len(model.labels))[:3]:
        description = f"{model.key.name} has no label {ids[k]}; it has {label_list(model.labels)}"
        wrong.add(f"{field}[{k}]", description, unknown=True)
    return GivenLabels(first_index=request.start_index, ids=ids)


def _read_mixture(mixture: sampling_pb2.Mixture, model: ServedModel, wrong: Violations) -> LabelSource:
    components, path, before = mixture.components, "condition.mixture.components", len(wrong)
    if len(components) > len(model.labels):
        wrong.add(path, f"must hold at most the model's {len(model.labels)} labels, got {len(components)}")
        return NoLabels()
    weights = read_weights(components, path, model.key.name, model.labels, wrong)
    if len(wrong) == before and not any(weights.values()):
        wrong.add(path, "must hold at least one weight above 0" if components else "must not be empty")
    if len(wrong) > before:
        return NoLabels()
    return DrawnLabels.of_weights(tuple(weights.get(label, 0.0) for label in range(len(model.labels))))
