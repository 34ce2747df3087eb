"""The target of a PlanDatasetRequest, read into a rule; every wrong field is noted."""

from __future__ import annotations

import math

from fount.readers import Dataset
from fount.v1 import augmentation_pb2
from service.augmentation.permutation import MAX_ROWS
from service.augmentation.target_rules import Balance, Counts, Factor, Rule, Weights
from service.errors import Violation
from service.validation import read_label

__all__ = ["MAX_COUNTS", "read_rule"]

MAX_COUNTS = 4096
"""The most entries of TargetCounts: a ticket holds them."""

_MAX_FACTOR = 1000.0


def read_rule(
    request: augmentation_pb2.PlanDatasetRequest, dataset: Dataset, violations: list[Violation]
) -> Rule | None:
    """The rule of a request; None, noted, when it is wrong. Without a target, rows stay as many as they are."""
    before, target = len(violations), request.target
    if not request.HasField("target"):
        return Factor(factor=1.0, by_group=False)
    if target.by_group and not dataset.groups:
        violations.append(
            Violation(field="target.by_group", description=f"must be false: {dataset.name} has no group column")
        )
    rule = _read_kind(target, dataset, violations)
    return rule if len(violations) == before else None


def _read_kind(target: augmentation_pb2.Target, dataset: Dataset, violations: list[Violation]) -> Rule | None:
    match target.WhichOneof("kind"):
        case "balance_to_largest":
            if not target.balance_to_largest:
                violations.append(Violation(field="target.balance_to_largest", description="must be true, or left out"))
            return Balance(label=None, by_group=target.by_group)
        case "balance_to_class":
            field = "target.balance_to_class"
            label = read_label(target.balance_to_class, field, dataset.name, dataset.classes, violations)
            return Balance(label=label, by_group=target.by_group)
        case "factor":
            return _read_factor(target, violations)
        case "counts":
            return _read_counts(target, dataset, violations)
        case "weights":
            return _read_weights(target, dataset, violations)
    description = "set balance_to_largest, balance_to_class, factor, counts or weights, or leave the target out"
    violations.append(Violation(field="target", description=description))
    return None


def _read_factor(target: augmentation_pb2.Target, violations: list[Violation]) -> Rule | None:
    if not 0 < target.factor <= _MAX_FACTOR:  # NaN as well
        description = f"must be above 0 and at most {_MAX_FACTOR:g}, got {target.factor:g}"
        violations.append(Violation(field="target.factor", description=description))
        return None
    return Factor(factor=target.factor, by_group=target.by_group)


def _read_counts(target: augmentation_pb2.Target, dataset: Dataset, violations: list[Violation]) -> Rule | None:
    given = target.counts.counts
    if not 0 < len(given) <= MAX_COUNTS:
        description = f"must hold 1 to {MAX_COUNTS} entries, got {len(given)}"
        violations.append(Violation(field="target.counts.counts", description=description))
        return None
    counts: dict[tuple[int, int | None], tuple[int, int]] = {}
    for place, each in enumerate(given):
        field, known = f"target.counts.counts[{place}]", len(violations)
        label = read_label(each.label, f"{field}.label", dataset.name, dataset.classes, violations)
        group = _read_group(each.group, f"{field}.group", dataset, violations)
        if each.count > MAX_ROWS:
            violations.append(Violation(field=f"{field}.count", description=f"must be at most {MAX_ROWS}"))
        if len(violations) > known:
            continue
        if (label, group) in counts:
            violations.append(Violation(field=field, description="names its class and group a second time"))
        counts[label, group] = (each.count, place)
    if len({bool(each.group) for each in given}) > 1:
        description = "entries with and without a group cannot be mixed; name a group in each, or in none"
        violations.append(Violation(field="target.counts.counts", description=description))
    return Counts(counts=counts)


def _read_group(name: str, field: str, dataset: Dataset, violations: list[Violation]) -> int | None:
    if not name:
        return None
    if name in dataset.groups:
        return dataset.groups.index(name)
    known = ", ".join(map(repr, dataset.groups[:12])) or "none"
    description = f"{dataset.name} has no group {name[:80]!r}; it has {known}"
    violations.append(Violation(field=field, description=description, unknown=True))
    return None


def _read_weights(target: augmentation_pb2.Target, dataset: Dataset, violations: list[Violation]) -> Rule | None:
    total, given, before = target.weights.total, target.weights.weights, len(violations)
    if not 0 < total <= MAX_ROWS:
        description = f"must be 1 to {MAX_ROWS}, got {total}"
        violations.append(Violation(field="target.weights.total", description=description))
    if len(given) > min(len(dataset.classes), MAX_COUNTS):
        description = f"must hold at most one weight a class, got {len(given)}"
        violations.append(Violation(field="target.weights.weights", description=description))
        return None
    weights: dict[int, float] = {}
    for place, each in enumerate(given):
        field, known = f"target.weights.weights[{place}]", len(violations)
        if not (math.isfinite(each.weight) and each.weight >= 0):
            description = f"must be finite and not negative, got {each.weight:g}"
            violations.append(Violation(field=f"{field}.weight", description=description))
        label = read_label(each.label, f"{field}.label", dataset.name, dataset.classes, violations)
        if len(violations) == known and label in weights:
            violations.append(Violation(field=f"{field}.label", description=f"names label {label} a second time"))
        weights[label] = each.weight
    if len(violations) == before and not any(weights.values()):
        description = "must hold at least one weight above 0"
        violations.append(Violation(field="target.weights.weights", description=description))
    return Weights(total=total, weights=tuple(weights.get(k, 0.0) for k in range(len(dataset.classes))))
