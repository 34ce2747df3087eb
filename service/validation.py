"""Fields that several requests have: labels and sampling parameters, checked, with every wrong one named."""

from __future__ import annotations

import math
from dataclasses import fields

from fount.v1 import sampling_pb2
from service.domain import Parameters, ServedModel
from service.errors import InvalidRequest, UnknownName, Violation

__all__ = ["label_list", "raise_violations", "read_label", "read_parameters"]


def raise_violations(violations: list[Violation]) -> None:
    """Raise what was found, if anything was.

    Raises:
        UnknownName: names are unknown, and nothing else is wrong.
        InvalidRequest: something else is.
    """
    if not violations:
        return
    if all(each.unknown for each in violations):
        raise UnknownName(tuple(violations))
    raise InvalidRequest(tuple(violations))


def read_parameters(
    message: sampling_pb2.Parameters, field: str, model: ServedModel, violations: list[Violation]
) -> Parameters:
    """Sampling parameters with the card's defaults filled in; notes those the model does not take so."""
    given = {each.name: value for each, value in message.ListFields()}
    values: dict[str, float | int | None] = {}
    for each in fields(Parameters):
        known = model.parameters.get(each.name)
        if each.name not in given:
            values[each.name] = known.default if known else None
            continue
        value = values[each.name] = given[each.name]
        if known is None:
            takes = ", ".join(sorted(model.parameters)) or "none"
            description = f"{model.key.name} does not take it; it takes {takes}"
            violations.append(Violation(field=f"{field}.{each.name}", description=description))
        elif not (math.isfinite(value) and known.minimum <= value <= known.maximum):
            description = f"must be {known.minimum:g} to {known.maximum:g}, got {value:g}"
            violations.append(Violation(field=f"{field}.{each.name}", description=description))
    for name in ("top_k", "steps"):
        values[name] = None if values[name] is None else int(values[name] or 0)
    return Parameters(**values)  # type: ignore[arg-type]  # each value has its field's type, from the message


def read_label(
    label: sampling_pb2.LabelRef, field: str, owner: str, names: tuple[str, ...], violations: list[Violation]
) -> int:
    """The id of a label that `owner`, a model or data set, calls by these names; 0, noted, when it is wrong."""
    kind = label.WhichOneof("kind")
    if kind is None:
        violations.append(Violation(field=field, description="set an id or a name"))
    elif kind == "id" and label.id < len(names):
        return label.id
    elif kind == "name" and label.name in names:
        return names.index(label.name)
    else:
        given = str(label.id) if kind == "id" else repr(label.name[:80])
        description = f"{owner} has no label {given}; it has {label_list(names)}"
        violations.append(Violation(field=f"{field}.{kind}", description=description, unknown=True))
    return 0


def label_list(names: tuple[str, ...]) -> str:
    """The labels, for people; the first twelve."""
    shown = ", ".join(f"{i} ({name!r})" for i, name in enumerate(names[:12]))
    return shown if len(names) <= 12 else f"{shown}, … {len(names)} in all"
