"""From a SampleRequest to an order the scheduler can work on: every field checked, every wrong one named.

A fount.v1.SampleRequest enters with its catalog; a `SampleOrder` leaves, or the one error that names all bad fields.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

import numpy as np

from fount.v1 import sampling_pb2
from service.catalog import Catalog, Entry, LabelSource
from service.catalog.conditions import DrawnLabels, GivenLabels, NoLabels, OneLabel
from service.domain import Dtype, Encoding, Operation, Parameters, ServedModel, Target
from service.errors import FountServiceError, InvalidRequest, NotReady, Retired, Violation
from service.rpc.fields import label_value, parameter_values
from service.validation import check_label, check_parameters, label_list, raise_violations

__all__ = ["SampleOrder", "read_sample_request"]

_INDEX_LIMIT = 2**64


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleOrder:
    """A checked request.

    Attributes:
        model: what to draw from.
        target: the workers that may.
        seed: the request's, or one drawn here.
        start_index, count: which samples.
        labels: where their labels come from.
        parameters: with the card's defaults filled in.
        encoding: how samples become bytes.
    """

    model: ServedModel
    target: Target
    seed: int
    start_index: int
    count: int
    labels: LabelSource
    parameters: Parameters
    encoding: Encoding

    @property
    def dtype(self) -> Dtype:
        """What workers are to send: floats only where floats are wanted."""
        return Dtype.FLOAT32 if self.encoding is Encoding.FLOAT32 else Dtype.UINT8


def read_sample_request(request: sampling_pb2.SampleRequest, catalog: Catalog) -> SampleOrder:
    """Check a request against the model it names.

    Raises:
        InvalidRequest: some field is wrong; names every one.
        UnknownName: the model, its version, or a label does not exist, and nothing else is wrong.
        Retired: the digest, the numerics or the operation is not served.
        NotReady: no worker of the model is ready.
    """
    violations = _range_violations(request)
    entry = _find(request, catalog, violations)
    if entry.model and Operation.SAMPLE not in entry.model.operations:
        catalog.choose(entry, Operation.SAMPLE)  # raises Retired: fields of a draw mean nothing to such a model
    target, model, refusal = _choose(request, catalog, entry)
    if model is None:
        raise_violations(violations)
        raise refusal or NotReady(f"{entry.name} {entry.version} is not ready: {entry.reason}")
    encoding = _read_encoding(request, model, violations)
    parameters = check_parameters(parameter_values(request.parameters), "parameters", model, violations)
    labels = _read_condition(request, model, violations)
    if request.count > model.max_count:
        violations.append(
            Violation(field="count", description=f"must be at most {model.max_count}, got {request.count}")
        )
    if request.priority not in sampling_pb2.Priority.values():
        violations.append(Violation(field="priority", description=f"{request.priority} is not a Priority"))
    raise_violations(violations)
    if target is None:
        raise refusal or NotReady(f"{entry.name} {entry.version} is not ready: {entry.reason}")
    return SampleOrder(
        model=model,
        target=target,
        seed=request.seed if request.HasField("seed") else secrets.randbits(64),
        start_index=request.start_index,
        count=request.count,
        labels=labels,
        parameters=parameters,
        encoding=encoding,
    )


def _choose(
    request: sampling_pb2.SampleRequest, catalog: Catalog, entry: Entry
) -> tuple[Target | None, ServedModel | None, FountServiceError | None]:
    """The target with what it accepts; when there is none, what the model accepts, and the refusal for later."""
    try:
        target, model = catalog.choose(entry, Operation.SAMPLE, digest=request.model.digest, numerics=request.numerics)
    except (NotReady, Retired) as error:
        return None, entry.model, error
    return target, model, None


def _range_violations(request: sampling_pb2.SampleRequest) -> list[Violation]:
    violations = []
    if request.count == 0:
        violations.append(Violation(field="count", description="must be at least 1"))
    if request.start_index + request.count > _INDEX_LIMIT:
        description = f"start_index + count must be at most 2^64, got {request.start_index} + {request.count}"
        violations.append(Violation(field="start_index", description=description))
    return violations


def _find(request: sampling_pb2.SampleRequest, catalog: Catalog, violations: list[Violation]) -> Entry:
    try:
        return catalog.find(request.model.name, request.model.version, request.model.digest)
    except InvalidRequest as error:
        raise_violations([*error.violations, *violations])
        raise


def _read_encoding(request: sampling_pb2.SampleRequest, model: ServedModel, violations: list[Violation]) -> Encoding:
    wanted = request.encoding or Encoding.UINT8
    if wanted in model.encodings:
        return Encoding(wanted)
    able = ", ".join(each.name for each in sorted(model.encodings)) or "none"
    name = Encoding(wanted).name if wanted in Encoding.__members__.values() else str(wanted)
    violations.append(Violation(field="encoding", description=f"the model cannot give {name}; it gives {able}"))
    return Encoding.UINT8


def _read_condition(
    request: sampling_pb2.SampleRequest, model: ServedModel, violations: list[Violation]
) -> LabelSource:
    if not request.HasField("condition"):
        return DrawnLabels.of_weights(model.prior) if model.labels else NoLabels()
    kind = request.condition.WhichOneof("kind")
    if not model.labels:
        description = f"{model.key.name} is unconditional; leave the condition out"
        violations.append(Violation(field="condition", description=description))
        return NoLabels()
    if kind == "label":
        return OneLabel(
            label=check_label(
                label_value(request.condition.label), "condition.label", model.key.name, model.labels, violations
            )
        )
    if kind == "labels":
        return _read_labels(request, model, violations)
    if kind == "mixture":
        return _read_mixture(request.condition.mixture, model, violations)
    description = "set label, labels or mixture, or leave the condition out for the model's prior"
    violations.append(Violation(field="condition", description=description))
    return NoLabels()


def _read_labels(request: sampling_pb2.SampleRequest, model: ServedModel, violations: list[Violation]) -> LabelSource:
    given, field = request.condition.labels.ids, "condition.labels.ids"
    if len(given) != request.count:
        description = f"must hold one label a sample: count is {request.count}, got {len(given)}"
        violations.append(Violation(field=field, description=description))
    if len(given) > model.max_labels:
        description = f"must hold at most {model.max_labels} labels, got {len(given)}; ask in several requests"
        violations.append(Violation(field=field, description=description))
        return NoLabels()
    ids = np.asarray(given, np.uint32)
    for k in np.flatnonzero(ids >= len(model.labels))[:3]:
        description = f"{model.key.name} has no label {ids[k]}; it has {label_list(model.labels)}"
        violations.append(Violation(field=f"{field}[{k}]", description=description, unknown=True))
    return GivenLabels(first_index=request.start_index, ids=ids)


def _read_mixture(mixture: sampling_pb2.Mixture, model: ServedModel, violations: list[Violation]) -> LabelSource:
    if len(mixture.components) > len(model.labels):
        description = f"must hold at most the model's {len(model.labels)} labels, got {len(mixture.components)}"
        violations.append(Violation(field="condition.mixture.components", description=description))
        return NoLabels()
    weights, seen, before = [0.0] * len(model.labels), set[int](), len(violations)
    for k, component in enumerate(mixture.components):
        field = f"condition.mixture.components[{k}]"
        if not (math.isfinite(component.weight) and component.weight >= 0):
            description = f"must be finite and not negative, got {component.weight:g}"
            violations.append(Violation(field=f"{field}.weight", description=description))
        known = len(violations)
        label = check_label(label_value(component.label), f"{field}.label", model.key.name, model.labels, violations)
        if len(violations) > known:
            continue
        if label in seen:
            violations.append(Violation(field=f"{field}.label", description=f"names label {label} a second time"))
        seen.add(label)
        weights[label] = component.weight
    if len(violations) == before and not any(weights):
        description = "must hold at least one weight above 0" if mixture.components else "must not be empty"
        violations.append(Violation(field="condition.mixture.components", description=description))
    return DrawnLabels.of_weights(tuple(weights)) if len(violations) == before else NoLabels()
