"""Read and write the message fields that several requests have: labels, parameters, model references and policies.

Problems are collected in `Violations`, so that a caller receives all of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from fount.names import class_index, indices_of
from fount.transforms import RANGES, Kind, Policy, Transform, violations
from fount.v1 import augmentation_pb2, model_pb2, sampling_pb2
from service.domain import ModelKey, Parameters, ServedModel
from service.errors import InvalidRequest, UnknownName, Violation
from service.evaluation.specification import PinnedModel

__all__ = [
    "NO_TRANSFORMER",
    "Violations",
    "label_list",
    "policy_from_proto",
    "policy_to_proto",
    "raise_violations",
    "read_label",
    "read_parameters",
    "read_policy",
    "read_weights",
    "reference_to_message",
]


NO_TRANSFORMER = "no model with the operation TRANSFORM is served; serve the archive `transforms` as well"


class Violations(list[Violation]):
    """Collects what is wrong with a request."""

    def add(self, field: str, description: str, *, unknown: bool = False) -> None:
        """Append a violation; see `Violation`."""
        self.append(Violation(field=field, description=description, unknown=unknown))

    def check_range(self, field: str, value: float, low: float, high: float) -> None:
        """Append a violation unless a value is within low and high."""
        if not low <= value <= high:  # NaN as well
            self.add(field, f"must be {low:.16g} to {high:.16g}, got {value:.16g}")

    def check_weight(self, field: str, weight: float) -> None:
        """Append a violation unless a weight is finite and not negative."""
        if not 0 <= weight < math.inf:  # NaN as well
            self.add(field, f"must be finite and not negative, got {weight:g}")


def raise_violations(violations: Sequence[Violation]) -> None:
    """Raise the violations found, if any.

    Raises:
        UnknownName: names are unknown, and nothing else is wrong.
        InvalidRequest: something else is wrong.
    """
    if not violations:
        return
    if all(each.unknown for each in violations):
        raise UnknownName(tuple(violations))
    raise InvalidRequest(tuple(violations))


# --- Models and their parameters --------------------------------------------------------------------------------------


def reference_to_message(key: ModelKey | PinnedModel) -> model_pb2.ModelRef:
    """Write a reference to a served model."""
    return model_pb2.ModelRef(name=key.name, version=key.version, digest=key.digest)


def read_parameters(message: sampling_pb2.Parameters, field: str, model: ServedModel, wrong: Violations) -> Parameters:
    """Read sampling parameters, and fill in the card's defaults; each that the model does not accept is a violation."""
    given: dict[str, Any] = {}
    for name, value in ((each.name, value) for each, value in message.ListFields()):
        known = model.parameters.get(name)
        if known is None:
            accepted = ", ".join(sorted(model.parameters)) or "none"
            wrong.add(f"{field}.{name}", f"{model.key.name} does not take it; it takes {accepted}")
        elif not (math.isfinite(value) and known.minimum <= value <= known.maximum):
            wrong.add(f"{field}.{name}", f"must be {known.minimum:g} to {known.maximum:g}, got {value:g}")
        else:
            given[name] = value
    return replace(model.default_parameters, **given) if given else model.default_parameters


# --- Labels -----------------------------------------------------------------------------------------------------------


def read_label(
    message: sampling_pb2.LabelRef,
    field: str,
    owner: str,
    names: tuple[str, ...],
    wrong: Violations,
    indices: Mapping[str, int] | None = None,
) -> int:
    """Read the id of a label, given by id or by a text as in `class_index`; 0, with a violation, when it is wrong.

    Args:
        message: the label.
        field: its path in the request.
        owner: the model or data set that has these labels.
        names: of its labels, by id, in NFC.
        wrong: appended to.
        indices: of the names, where many labels are read, as in `class_index`.
    """
    kind = message.WhichOneof("kind")
    if kind is None:
        wrong.add(field, "set an id or a name")
    elif kind == "id" and message.id < len(names):
        return message.id
    elif kind == "name" and (index := class_index(message.name, names, indices)) is not None:
        return index
    else:
        shown = str(message.id) if kind == "id" else repr(message.name[:80])
        wrong.add(f"{field}.{kind}", f"{owner} has no label {shown}; it has {label_list(names)}", unknown=True)
    return 0


def read_weights(
    entries: Iterable[sampling_pb2.MixtureComponent],
    field: str,
    owner: str,
    names: tuple[str, ...],
    wrong: Violations,
) -> dict[int, float]:
    """Read weights of labels, each label at most once; arguments as in `read_label`."""
    weights: dict[int, float] = {}
    indices = indices_of(names)
    for place, entry in enumerate(entries):
        path = f"{field}[{place}]"
        wrong.check_weight(f"{path}.weight", entry.weight)
        known = len(wrong)
        label = read_label(entry.label, f"{path}.label", owner, names, wrong, indices)
        if len(wrong) == known and label in weights:
            wrong.add(f"{path}.label", f"names label {label} a second time")
        if len(wrong) == known:
            weights[label] = entry.weight
    return weights


def label_list(names: tuple[str, ...]) -> str:
    """Format the first twelve labels for a message."""
    shown = ", ".join(f"{i} ({name!r})" for i, name in enumerate(names[:12]))
    return shown if len(names) <= 12 else f"{shown}, … {len(names)} in all"


# --- Policies ---------------------------------------------------------------------------------------------------------


def read_policy(message: augmentation_pb2.TransformPolicy, field: str, wrong: Violations) -> Policy:
    """Read a policy; everything wrong with it is a violation."""
    if len(message.transforms) > len(RANGES):
        count = len(message.transforms)
        wrong.add(f"{field}.transforms", f"must name each of the {len(RANGES)} kinds at most once, got {count}")
        return Policy(transforms=())
    policy = policy_from_proto(message)
    for each in violations(policy):
        wrong.add(f"{field}.{each.key}", f"{each.wrong}; {each.remedy}")
    return policy


def policy_from_proto(message: augmentation_pb2.TransformPolicy) -> Policy:
    """Read a policy; a kind this version does not know becomes UNSPECIFIED, which `violations` reports."""
    return Policy(
        transforms=tuple(
            Transform(
                kind=Kind(int(each.kind)) if int(each.kind) in RANGES else Kind.UNSPECIFIED,
                probability=each.probability if each.HasField("probability") else 1.0,
                min=each.min,
                max=each.max,
            )
            for each in message.transforms
        )
    )


def policy_to_proto(policy: Policy) -> augmentation_pb2.TransformPolicy:
    """Write a policy with every field set."""
    transforms = [augmentation_pb2.Transform(**asdict(transform)) for transform in policy.transforms]
    return augmentation_pb2.TransformPolicy(transforms=transforms)
