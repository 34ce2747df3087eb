"""Read and write the target of a PlanDatasetRequest: how many rows of each class a plan is to have.

A `Target` message and a data set enter; a `TargetRule` leaves, in which classes and groups are numbers, and the other
way round. Every wrong field is noted.
"""

from __future__ import annotations

from fount.readers import Dataset
from fount.v1 import augmentation_pb2, sampling_pb2
from service.augmentation.permutation import MAX_ROWS
from service.augmentation.targets import Balance, Counts, Factor, TargetRule, Weights
from service.rpc.fields import label_value
from service.validation import Violations, check_label

__all__ = ["MAX_COUNTS", "read_target", "target_to_message"]

MAX_COUNTS = 4096
"""The most entries of TargetCounts: a ticket holds them."""

_MAX_FACTOR = 1000.0
_UNCHANGED = Factor(factor=1.0, by_group=False)


def read_target(request: augmentation_pb2.PlanDatasetRequest, dataset: Dataset, wrong: Violations) -> TargetRule:
    """Read the target of a request; any rule, and a violation, when it is wrong. Unset: classes keep their rows."""
    if not request.HasField("target"):
        return _UNCHANGED
    return _TargetReader(request.target, dataset, wrong).read()


def target_to_message(rule: TargetRule, dataset: Dataset, *, subsample: bool) -> augmentation_pb2.Target:
    """Write a target, with class ids, which are shorter than names."""
    target = augmentation_pb2.Target(subsample=subsample)
    match rule:
        case Balance(label=int(label)):
            target.balance_to_class.CopyFrom(sampling_pb2.LabelRef(id=label))
        case Balance():
            target.balance_to_largest = True
        case Factor():
            target.factor = rule.factor
        case Counts():
            for (label, group), count in rule.counts.items():
                name = "" if group is None else dataset.groups[group]
                target.counts.counts.add(label=sampling_pb2.LabelRef(id=label), group=name, count=count)
        case Weights():
            target.weights.total = rule.total
            for label, weight in rule.weights.items():
                target.weights.weights.add(label=sampling_pb2.LabelRef(id=label), weight=weight)
    if isinstance(rule, Balance | Factor):
        target.by_group = rule.by_group
    return target


class _TargetReader:
    """Reads one target."""

    def __init__(self, target: augmentation_pb2.Target, dataset: Dataset, wrong: Violations) -> None:
        self._target, self._dataset, self._wrong = target, dataset, wrong

    def read(self) -> TargetRule:
        """Read the rule."""
        target = self._target
        if target.by_group and not self._dataset.groups:
            self._wrong.add("target.by_group", f"must be false: {self._dataset.name} has no group column")
        match target.WhichOneof("kind"):
            case "balance_to_largest":
                if not target.balance_to_largest:
                    self._wrong.add("target.balance_to_largest", "must be true, or left out")
                return Balance(label=None, by_group=target.by_group)
            case "balance_to_class":
                label = self._label(target.balance_to_class, "target.balance_to_class")
                return Balance(label=label, by_group=target.by_group)
            case "factor":
                if not 0 < target.factor <= _MAX_FACTOR:  # NaN as well
                    self._wrong.add(
                        "target.factor", f"must be above 0 and at most {_MAX_FACTOR:g}, got {target.factor:g}"
                    )
                return Factor(factor=target.factor, by_group=target.by_group)
            case "counts":
                return self._read_counts()
            case "weights":
                return self._read_weights()
        kinds = "balance_to_largest, balance_to_class, factor, counts or weights"
        self._wrong.add("target", f"set {kinds}, or leave the target out")
        return _UNCHANGED

    def _read_counts(self) -> TargetRule:
        given = self._target.counts.counts
        if not 0 < len(given) <= MAX_COUNTS:
            self._wrong.add("target.counts.counts", f"must hold 1 to {MAX_COUNTS} entries, got {len(given)}")
            return _UNCHANGED
        counts: dict[tuple[int, int | None], int] = {}
        for place, each in enumerate(given):
            field, known = f"target.counts.counts[{place}]", len(self._wrong)
            key = (self._label(each.label, f"{field}.label"), self._group(each.group, f"{field}.group"))
            if each.count > MAX_ROWS:
                self._wrong.add(f"{field}.count", f"must be at most {MAX_ROWS}")
            if len(self._wrong) == known and key in counts:
                self._wrong.add(field, "names its class and group a second time")
            if len(self._wrong) == known:
                counts[key] = each.count
        if len({bool(each.group) for each in given}) > 1:
            problem = "entries with and without a group cannot be mixed; name a group in each, or in none"
            self._wrong.add("target.counts.counts", problem)
        return Counts(counts=counts)

    def _read_weights(self) -> TargetRule:
        total, given, before = self._target.weights.total, self._target.weights.weights, len(self._wrong)
        self._wrong.check_range("target.weights.total", total, 1, MAX_ROWS)
        if len(given) > min(len(self._dataset.classes), MAX_COUNTS):
            self._wrong.add("target.weights.weights", f"must hold at most one weight a class, got {len(given)}")
            return _UNCHANGED
        weights: dict[int, float] = {}
        for place, each in enumerate(given):
            field, known = f"target.weights.weights[{place}]", len(self._wrong)
            self._wrong.check_weight(f"{field}.weight", each.weight)
            label = self._label(each.label, f"{field}.label")
            if len(self._wrong) == known and label in weights:
                self._wrong.add(f"{field}.label", f"names label {label} a second time")
            weights[label] = each.weight
        if len(self._wrong) == before and not any(weights.values()):
            self._wrong.add("target.weights.weights", "must hold at least one weight above 0")
        return Weights(total=total, weights=weights)

    def _label(self, label: sampling_pb2.LabelRef, field: str) -> int:
        return check_label(label_value(label), field, self._dataset.name, self._dataset.classes, self._wrong)

    def _group(self, name: str, field: str) -> int | None:
        groups = self._dataset.groups
        if not name:
            return None
        if name in groups:
            return groups.index(name)
        known = ", ".join(map(repr, groups[:12])) or "none"
        description = f"{self._dataset.name} has no group {name[:80]!r}; it has {known}"
        self._wrong.add(field, description, unknown=True)
        return None
