"""From a PlanDatasetRequest to wishes that can be planned: every field checked, every wrong one named.

The reading has two halves, for what a target comes to is counted between them, away from the event loop:
`WishReader.read`, `Wishes.fill`, `WishReader.check`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.augmentation.shards import MAX_SHARDS
from fount.readers import Dataset, DatasetSplit
from fount.transforms import Policy, safe_policy
from fount.transforms import violations as policy_violations
from fount.v1 import augmentation_pb2
from service.augmentation.open_plan import Pinned
from service.augmentation.permutation import MAX_ROWS
from service.augmentation.slots import RealMode, Source
from service.augmentation.targets import Balance, Cells, Counts, Factor, Filling, MixRule, Rule, Shortage, Weights, fill
from service.catalog import Catalog
from service.catalog.roles import Roles, class_labels, unknown_classes
from service.domain import Parameters
from service.errors import Violation
from service.rpc.fields import label_value, parameter_values
from service.rpc.policy import policy_from_proto
from service.validation import check_label, check_parameters, label_list, raise_violations

__all__ = [
    "MAX_COUNTS",
    "SynthesisReader",
    "SynthesisWish",
    "VerificationWish",
    "WishReader",
    "Wishes",
    "choose_split",
    "held_out_split",
    "read_rule",
]


_DAY_S = 86400
_MAX_TTL_S = 30 * _DAY_S
_AGREEMENT, _TRIED_ROWS = 0.9, 256


@dataclass(frozen=True, kw_only=True, eq=False)
class VerificationWish:
    """How transformed labels are checked: by whom (None: not at all), from which agreement on, on how many rows."""

    verifier: Pinned | None
    min_agreement: float
    rows: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Wishes:
    """A checked request.

    Attributes:
        dataset, split, cells: what is augmented, and its rows by class and group.
        seed: the request's, or one drawn here.
        rule, subsample, mode, mix: which rows there are to be.
        policy: how rows are transformed.
        transformer: None where nothing is transformed.
        synthesis: None where nothing is synthesised.
        verification: of transformed labels.
        shards, time_to_live_s: of the ticket.
    """

    dataset: Dataset
    split: DatasetSplit
    cells: Cells
    seed: int
    rule: Rule
    subsample: bool
    mode: RealMode
    mix: MixRule
    policy: Policy
    transformer: Pinned | None
    synthesis: SynthesisWish | None
    verification: VerificationWish
    shards: int
    time_to_live_s: float

    def fill(self) -> Filling:
        """Count what the rule comes to."""
        return fill(
            self.cells,
            self.rule,
            group_count=len(self.dataset.groups),
            mix=self.mix,
            mode=self.mode,
            subsample=self.subsample,
        )


def choose_split(request: augmentation_pb2.PlanDatasetRequest, dataset: Dataset) -> DatasetSplit:
    """The split a request is for.

    Raises:
        UnknownName: the data set has no such split.
    """
    name = request.split or "train"
    if name not in dataset.splits:
        splits = ", ".join(dataset.splits)
        description = f"{dataset.name} has no split {name[:80]!r}; it has {splits}"
        raise_violations([Violation(field="split", description=description, unknown=True)])
    return dataset.splits[name]


class WishReader:
    """Reads one request.

    Args:
        request: to be read.
        dataset, split, cells: that it is for.
        default_classifier: the data set's; empty: none.
        default_policy: the data set's; None: the safe one.
        catalog: what is served.
        pinned: the models of a ticket by role; then labels are not verified again. None: a request.
    """

    def __init__(
        self,
        request: augmentation_pb2.PlanDatasetRequest,
        *,
        dataset: Dataset,
        split: DatasetSplit,
        cells: Cells,
        default_classifier: str,
        default_policy: Policy | None,
        catalog: Catalog,
        pinned: Mapping[str, augmentation_pb2.PinnedModel] | None = None,
    ) -> None:
        self._request, self._dataset, self._split, self._cells = request, dataset, split, cells
        self._default_classifier, self._default_policy = default_classifier, default_policy
        self._pinned = pinned
        numerics = {role: each.numerics for role, each in (pinned or {}).items()}
        self._roles = Roles(catalog, dataset, numerics)
        self._violations: list[Violation] = []

    def read(self) -> Wishes | None:
        """Read all fields; None when what is wrong with them leaves nothing to count."""
        request = self._request
        rule = read_rule(request, self._dataset, self._violations)
        mode, mix = self._read_mode(), self._read_mix()
        policy = self._read_policy()
        synthesis = None
        if mix.synthesised and self._is_needed("generator"):
            reader = SynthesisReader(request, self._dataset, self._split, self._roles, self._default_classifier)
            synthesis = reader.read(self._violations)
        verification, shards = self._read_verification(mix), self._read_shards()
        time_to_live_s = self._read_time_to_live()
        if rule is None or any(each.field.startswith("mix") for each in self._violations):
            return None
        return Wishes(
            dataset=self._dataset,
            split=self._split,
            cells=self._cells,
            seed=request.seed if request.HasField("seed") else secrets.randbits(64),
            rule=rule,
            subsample=request.target.subsample,
            mode=mode,
            mix=mix,
            policy=policy,
            transformer=self._find_transformer() if mix.transformed and self._is_needed("transformer") else None,
            synthesis=synthesis,
            verification=verification,
            shards=shards,
            time_to_live_s=time_to_live_s,
        )

    def check(self, wishes: Wishes | None, filling: Filling) -> None:
        """Check what was counted, and raise everything that is wrong.

        Raises:
            InvalidRequest: fields are wrong; names every one.
            UnknownName: names do not exist, and nothing else is wrong.
            PlanRefused: a model is for other images, or nothing that transforms is served.
            Retired: a digest, numerics or operation is not served.
            NotReady: a model has no ready worker.
        """
        self._violations += self._roles.violations
        self._violations += [self._shortage(each) for each in filling.shortages]
        if wishes and not filling.shortages:
            rows = sum(each.count for each in filling.strata)
            if not 0 < rows <= MAX_ROWS:
                description = f"must come to 1 to {MAX_ROWS} rows, and comes to {rows}"
                self._add("target", description)
            self._check_classes(wishes, filling)
        raise_violations(self._violations)
        if self._roles.refusal:
            raise self._roles.refusal

    def _add(self, field: str, description: str) -> None:
        self._violations.append(Violation(field=field, description=description))

    def _is_needed(self, role: str) -> bool:
        """Whether a model is to be found: of a ticket, those it pins; rows depend on no other."""
        return self._pinned is None or role in self._pinned

    def _read_mode(self) -> RealMode:
        mode = self._request.real.mode or RealMode.ONCE
        if mode not in list(RealMode):
            self._add("real.mode", f"{mode} is not a RealRows.Mode")
            return RealMode.ONCE
        return RealMode(mode)

    def _read_mix(self) -> MixRule:
        if not self._request.HasField("mix"):
            return MixRule()
        mix = self._request.mix
        weights = {name: getattr(mix, name) for name in ("resampled", "transformed", "synthesised")}
        wrong = [name for name, weight in weights.items() if not (math.isfinite(weight) and weight >= 0)]
        for name in wrong:
            self._add(f"mix.{name}", f"must be finite and not negative, got {weights[name]:g}")
        if not wrong and not any(weights.values()):
            self._add("mix", "must hold at least one weight above 0; leave it out to draw rows again")
        cap = mix.max_synthetic_ratio if mix.HasField("max_synthetic_ratio") else None
        if cap is not None and not (math.isfinite(cap) and cap >= 0):
            self._add("mix.max_synthetic_ratio", f"must be finite and not negative, got {cap:g}")
        return MixRule(**weights, max_synthetic_ratio=cap) if not wrong else MixRule()

    def _read_policy(self) -> Policy:
        if not self._request.HasField("policy"):
            return self._default_policy or safe_policy(self._dataset.name, self._dataset.shape)
        policy = policy_from_proto(self._request.policy)
        for each in policy_violations(policy):
            self._add(f"policy.{each.key}", f"{each.wrong}; {each.remedy}")
        return policy

    def _read_verification(self, mix: MixRule) -> VerificationWish:
        wish = self._request.verification
        agreement = wish.min_agreement if wish.HasField("min_agreement") else _AGREEMENT
        if not 0 <= agreement <= 1:
            self._add("verification.min_agreement", f"must be 0 to 1, got {agreement:g}")
        rows = wish.rows or _TRIED_ROWS
        if not 16 <= rows <= 4096:
            self._add("verification.rows", f"must be 16 to 4096, got {rows}")
        verifier = None
        if mix.transformed and self._pinned is None:
            if wish.HasField("classifier"):
                verifier = self._roles.find("verifier", wish.classifier, "verification.classifier")
            else:
                verifier = self._roles.find_default("verifier", self._default_classifier)
        return VerificationWish(verifier=verifier, min_agreement=agreement, rows=rows)

    def _find_transformer(self) -> Pinned | None:
        if self._pinned and (told := self._pinned.get("transformer")):
            return self._roles.find("transformer", told.model, "transformer")
        return self._roles.transformer()

    def _read_shards(self) -> int:
        shards = self._request.shards or 1
        if shards > MAX_SHARDS:
            self._add("shards", f"must be 1 to {MAX_SHARDS}, got {shards}")
        return shards

    def _read_time_to_live(self) -> float:
        if not self._request.HasField("time_to_live"):
            return float(_DAY_S)
        given = self._request.time_to_live
        seconds = given.seconds + given.nanos / 1e9
        if not 0 < seconds <= _MAX_TTL_S:
            self._add("time_to_live", f"must be above 0 and at most 30 days, got {seconds:g} s")
        return seconds

    def _shortage(self, short: Shortage) -> Violation:
        who = f"class {self._dataset.classes[short.label]!r}"
        if short.group is not None and self._dataset.groups:
            who += f" of group {self._dataset.groups[short.group]!r}"
        remedy = "set target.subsample to leave rows out"
        if not short.there:
            remedy = "give mix.synthesised a weight to have them made by a generator, or leave it out"
        description = f"{who} has {short.there} rows and would have {short.target}; {remedy}"
        return Violation(field=short.field, description=description)

    def _check_classes(self, wishes: Wishes, filling: Filling) -> None:
        """Check that models know every class they are asked for."""
        of = {each.label for each in filling.strata if each.source is Source.SYNTHESISED}
        if not (of and wishes.synthesis):
            return
        synthesis = wishes.synthesis
        asked = []
        if synthesis.generator.model.labels:  # an unconditional one is refused as that
            asked.append(("synthesis.model", synthesis.generator, synthesis.generator_labels))
        if synthesis.classifier:
            asked.append(("synthesis.classifier", synthesis.classifier, synthesis.classifier_labels))
        for field, pinned, labels in asked:
            if unknown := unknown_classes(self._dataset, labels, pinned.model, of):
                names, known = ", ".join(map(repr, unknown[:12])), label_list(pinned.model.labels) or "no labels"
                self._add(field, f"{pinned.model.key.name} does not know {names}; it knows {known}")


# FOLDED FROM service.rpc.plan_request:
# The target of a PlanDatasetRequest, read into a rule; every wrong field is noted.


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
            label = check_label(label_value(target.balance_to_class), field, dataset.name, dataset.classes, violations)
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
        label = check_label(label_value(each.label), f"{field}.label", dataset.name, dataset.classes, violations)
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
        label = check_label(label_value(each.label), f"{field}.label", dataset.name, dataset.classes, violations)
        if len(violations) == known and label in weights:
            violations.append(Violation(field=f"{field}.label", description=f"names label {label} a second time"))
        weights[label] = each.weight
    if len(violations) == before and not any(weights.values()):
        description = "must hold at least one weight above 0"
        violations.append(Violation(field="target.weights.weights", description=description))
    return Weights(total=total, weights=tuple(weights.get(k, 0.0) for k in range(len(dataset.classes))))


# FOLDED FROM service.rpc.plan_request:
# The synthesis of a PlanDatasetRequest, read: generator, filters and attempts; every wrong field is noted.


_MAX_ATTEMPTS = 64
_ATTEMPTS, _CONFIDENCE, _QUANTILE = 8, 0.5, 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesisWish:
    """How rows are synthesised.

    Attributes:
        generator: makes them.
        classifier: accepts or refuses them; None: nothing is asked.
        parameters: of the draws, the card's defaults filled in.
        min_confidence: 0: no filter.
        copy_quantile: 0: no filter.
        attempts: samples a row may try.
        generator_labels, classifier_labels: (classes,) uint32, as in `OpenPlan`.
    """

    generator: Pinned
    classifier: Pinned | None
    parameters: Parameters
    min_confidence: float
    copy_quantile: float
    attempts: int
    generator_labels: NDArray[np.uint32]
    classifier_labels: NDArray[np.uint32]


def held_out_split(dataset: Dataset, split: DatasetSplit) -> DatasetSplit | None:
    """The rows that a copy filter is calibrated on: "test", or else another split with rows; None if there is none."""
    others = [each for name, each in dataset.splits.items() if name != split.name and len(each)]
    return min(others, key=lambda each: each.name != "test", default=None)


class SynthesisReader:
    """Reads the synthesis of one request.

    Args:
        request: to be read.
        dataset, split: that it is for.
        roles: finds the models.
        default_classifier: the data set's; empty: none.
    """

    def __init__(
        self,
        request: augmentation_pb2.PlanDatasetRequest,
        dataset: Dataset,
        split: DatasetSplit,
        roles: Roles,
        default_classifier: str,
    ) -> None:
        self._request, self._dataset, self._split = request, dataset, split
        self._roles, self._default_classifier = roles, default_classifier
        self._violations: list[Violation] = []

    def read(self, violations: list[Violation]) -> SynthesisWish | None:
        """Read it; None, noted among `violations`, when there is none, or no generator.

        Other wrong fields are noted, too, and leave a wish.
        """
        self._violations = violations
        if not self._request.HasField("synthesis"):
            self._add("synthesis", "is needed, for mix.synthesised is above 0; name a generator in synthesis.model")
            return None
        wish = self._request.synthesis
        attempts = wish.attempts or _ATTEMPTS
        if attempts > _MAX_ATTEMPTS:
            self._add("synthesis.attempts", f"must be 1 to {_MAX_ATTEMPTS}, got {attempts}")
        quantile, classifier = self._read_quantile(), self._read_classifier()
        confidence = wish.min_confidence if wish.HasField("min_confidence") else _CONFIDENCE if classifier else 0.0
        generator = self._roles.find("generator", wish.model, "synthesis.model")
        if generator is None:
            return None
        if not generator.model.labels:
            self._add("synthesis.model", f"{generator.model.key.name} is unconditional; name a conditional generator")
        return SynthesisWish(
            generator=generator,
            classifier=classifier,
            parameters=check_parameters(
                parameter_values(wish.parameters), "synthesis.parameters", generator.model, self._violations
            ),
            min_confidence=confidence,
            copy_quantile=quantile,
            attempts=attempts,
            generator_labels=class_labels(self._dataset, generator.model),
            classifier_labels=class_labels(self._dataset, classifier.model if classifier else None),
        )

    def _read_quantile(self) -> float:
        wish, held_out = self._request.synthesis, held_out_split(self._dataset, self._split)
        if not wish.HasField("copy_quantile"):
            return _QUANTILE if held_out else 0.0
        if not 0 <= wish.copy_quantile <= 0.5:  # NaN as well
            self._add("synthesis.copy_quantile", f"must be 0 to 0.5, got {wish.copy_quantile:g}")
        elif wish.copy_quantile and held_out is None:
            self._add(
                "synthesis.copy_quantile", f"must be 0: {self._dataset.name} has no other split to calibrate it on"
            )
        return wish.copy_quantile

    def _read_classifier(self) -> Pinned | None:
        wish, field = self._request.synthesis, "synthesis.min_confidence"
        wanted = wish.min_confidence if wish.HasField("min_confidence") else _CONFIDENCE
        if not 0 <= wanted <= 1:
            self._add(field, f"must be 0 to 1, got {wanted:g}")
        if wanted == 0:
            return None
        if wish.HasField("classifier"):
            return self._roles.find("classifier", wish.classifier, "synthesis.classifier")
        found = self._roles.find_default("classifier", self._default_classifier)
        if found is None and wish.HasField("min_confidence") and self._roles.refusal is None:
            self._add(field, f"must be 0: no classifier of {self._dataset.name} is served; or name one")
        return found

    def _add(self, field: str, description: str) -> None:
        self._violations.append(Violation(field=field, description=description))
