"""Checks of values that several requests have in common: labels and sampling parameters.

Every check appends what is wrong to a list of violations, so that a caller receives all of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields

from service.domain import Parameters, ServedModel
from service.errors import InvalidRequest, UnknownName, Violation

__all__ = ["Violations", "check_label", "check_parameters", "label_list", "raise_violations"]


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


def check_parameters(
    given: Mapping[str, float], field: str, model: ServedModel, violations: list[Violation]
) -> Parameters:
    """Fill in the card's defaults; append a violation for each parameter that the model does not accept."""
    values: dict[str, float | None] = {}
    for name in (each.name for each in fields(Parameters)):
        known = model.parameters.get(name)
        if name not in given:
            values[name] = known.default if known else None
            continue
        value = values[name] = given[name]
        description = None
        if known is None:
            accepted = ", ".join(sorted(model.parameters)) or "none"
            description = f"{model.key.name} does not take it; it takes {accepted}"
        elif not (math.isfinite(value) and known.minimum <= value <= known.maximum):
            description = f"must be {known.minimum:g} to {known.maximum:g}, got {value:g}"
        if description:
            violations.append(Violation(field=f"{field}.{name}", description=description))
    whole = {name: int(number) for name in ("top_k", "steps") if (number := values[name]) is not None}
    return Parameters(**(values | whole))  # type: ignore[arg-type]  # each value has its field's type


def check_label(
    label: int | str | None, field: str, owner: str, names: tuple[str, ...], violations: list[Violation]
) -> int:
    """Return the id of a label, given by id or name; 0, with a violation, when it is wrong.

    Args:
        label: id or name; None: not given.
        field: path of the label in the request.
        owner: the model or data set that has these labels.
        names: of its labels, by id.
        violations: appended to.
    """
    if label is None:
        violations.append(Violation(field=field, description="set an id or a name"))
    elif isinstance(label, int) and label < len(names):
        return label
    elif label in names:
        return names.index(str(label))
    else:
        shown, kind = (str(label), "id") if isinstance(label, int) else (repr(label[:80]), "name")
        description = f"{owner} has no label {shown}; it has {label_list(names)}"
        violations.append(Violation(field=f"{field}.{kind}", description=description, unknown=True))
    return 0


def label_list(names: tuple[str, ...]) -> str:
    """Format the first twelve labels for a message."""
    shown = ", ".join(f"{i} ({name!r})" for i, name in enumerate(names[:12]))
    return shown if len(names) <= 12 else f"{shown}, … {len(names)} in all"
