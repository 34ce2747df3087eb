"""Read plan specifications from requests and tickets: every field is checked, and every wrong one is reported.

A PlanDatasetRequest enters, from a client or from a ticket that pins its models; a `PlanSpec` leaves, with names
resolved, models found, everything left open filled in, and rows allocated.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fount.augmentation.shards import MAX_SHARDS
from fount.names import indices_of, normal_name
from fount.readers import Dataset, DatasetSplit
from fount.transforms import Policy, safe_policy
from fount.v1 import augmentation_pb2, model_pb2, sampling_pb2
from service.augmentation.permutation import MAX_ROWS
from service.augmentation.plan_spec import PlanSpec, SynthesisSpec, VerificationSpec, held_out_split
from service.augmentation.slots import RealMode, Source
from service.augmentation.targets import (
    Allocation,
    Balance,
    Counts,
    Factor,
    Mix,
    Shortage,
    TargetRule,
    Weights,
    allocate,
    count_cells,
)
from service.catalog import ROLES, TRANSFORMER, Catalog, PinnedModel, class_labels, not_ready
from service.datasets import DatasetSettings
from service.errors import FountServiceError, InvalidRequest, NotReady, PlanRefused, Retired, UnknownName, Violation
from service.rpc.fields import (
    NO_TRANSFORMER,
    Violations,
    label_list,
    raise_violations,
    read_label,
    read_parameters,
    read_policy,
    read_weights,
)

__all__ = ["read_plan_request"]

_DAY_S = 86400
_MAX_TTL_S = 30 * _DAY_S
_MIN_AGREEMENT, _VERIFIED_ROWS = 0.9, 256  # defaults, as those below
_ATTEMPTS, _CONFIDENCE, _QUANTILE = 8, 0.5, 0.01
_MAX_ATTEMPTS = 64
_MAX_COUNTS = 4096  # entries of a target: a ticket holds them
_MAX_FACTOR = 1000.0
_LISTED_SHORTAGES = 3
_UNCHANGED = Factor(factor=1.0, by_group=False)

Pins = Mapping[str, augmentation_pb2.PinnedModel]
"""The models of a ticket by role."""


async def read_plan_request(
    request: augmentation_pb2.PlanDatasetRequest,
    dataset: Dataset,
    settings: DatasetSettings,
    catalog: Catalog,
    pins: Pins | None = None,
) -> PlanSpec:
    """Read a request for a data set with its settings.

    `pins` are the models of a ticket: no others are looked for, and labels are not verified again. None: the request is
    a client's.

    Raises:
        InvalidRequest: fields are wrong; names every one. UnknownName: only names are wrong.
        PlanRefused: a model is for other images, or no model that transforms is served.
        Retired: a digest or operation is not served.
        NotReady: a model has no ready worker.
    """
    name = request.split or "train"
    if name not in dataset.splits:
        problem = f"{dataset.name} has no split {name[:80]!r}; it has {', '.join(dataset.splits)}"
        raise UnknownName((Violation(field="split", description=problem, unknown=True),))
    return await _RequestReader(request, dataset, dataset.splits[name], settings, catalog, pins).read()


class _RequestReader:
    """Reads one request; arguments as `read_plan_request`."""

    def __init__(
        self,
        request: augmentation_pb2.PlanDatasetRequest,
        dataset: Dataset,
        split: DatasetSplit,
        settings: DatasetSettings,
        catalog: Catalog,
        pins: Pins | None,
    ) -> None:
        self._request, self._dataset, self._split, self._settings = request, dataset, split, settings
        self._catalog, self._pins = catalog, pins
        self._classes, self._groups = indices_of(dataset.classes), indices_of(dataset.groups)
        self._wrong = Violations()
        self._refusal: FountServiceError | None = None  # the first reason why a correctly named model cannot serve

    async def read(self) -> PlanSpec:
        """Read all fields, allocate rows, and raise everything that is wrong; see `read_plan_request`."""
        request, dataset, split = self._request, self._dataset, self._split
        target, mix = self._read_target(), self._read_mix()
        can_allocate = not self._wrong
        mode, policy = self._read_mode(), self._read_policy()
        synthesis = self._read_synthesis() if mix.synthesised and self._is_needed("generator") else None
        verification = self._read_verification(mix)
        shards, time_to_live_s = request.shards or 1, self._read_time_to_live()
        self._wrong.check_range("shards", shards, 1, MAX_SHARDS)
        cells, allocation, transformer = np.zeros((0, 1), np.int64), Allocation(), None
        if can_allocate:
            transformer = self._find_transformer() if mix.transformed and self._is_needed("transformer") else None
            groups, subsample = len(dataset.groups), request.target.subsample
            cells = await asyncio.to_thread(count_cells, split.labels, split.groups, len(dataset.classes), groups)
            allocation = await asyncio.to_thread(
                allocate, cells, target, group_count=groups, mix=mix, mode=mode, subsample=subsample
            )
            self._check_allocation(allocation, synthesis)
        raise_violations(self._wrong)
        if self._refusal:
            raise self._refusal
        return PlanSpec(
            dataset=dataset,
            split=split,
            cells=cells,
            seed=request.seed if request.HasField("seed") else secrets.randbits(64),
            mode=mode,
            mix=mix,
            allocation=allocation,
            policy=policy,
            transformer=transformer,
            synthesis=synthesis,
            verification=verification,
            shards=shards,
            time_to_live_s=time_to_live_s,
        )

    def _is_needed(self, role: str) -> bool:
        """Whether to find a model: of a ticket, only those it pins, since rows depend on no other."""
        return self._pins is None or role in self._pins

    def _read_target(self) -> TargetRule:
        """Read the target; any rule, and a violation, when it is wrong. Unset: classes keep their rows."""
        target, wrong = self._request.target, self._wrong
        if not self._request.HasField("target"):
            return _UNCHANGED
        if target.by_group and not self._dataset.groups:
            wrong.add("target.by_group", f"must be false: {self._dataset.name} has no group column")
        match target.WhichOneof("kind"):
            case "balance_to_largest":
                if not target.balance_to_largest:
                    wrong.add("target.balance_to_largest", "must be true, or left out")
                return Balance(label=None, by_group=target.by_group)
            case "balance_to_class":
                label = self._read_label(target.balance_to_class, "target.balance_to_class")
                return Balance(label=label, by_group=target.by_group)
            case "factor":
                if not 0 < target.factor <= _MAX_FACTOR:  # NaN as well
                    wrong.add("target.factor", f"must be above 0 and at most {_MAX_FACTOR:g}, got {target.factor:g}")
                return Factor(factor=target.factor, by_group=target.by_group)
            case "counts":
                return self._read_counts(target.counts)
            case "weights":
                return self._read_weights(target.weights)
        kinds = "balance_to_largest, balance_to_class, factor, counts or weights"
        wrong.add("target", f"set {kinds}, or leave the target out")
        return _UNCHANGED

    def _read_counts(self, target: augmentation_pb2.TargetCounts) -> TargetRule:
        given, wrong = target.counts, self._wrong
        if not 0 < len(given) <= _MAX_COUNTS:
            wrong.add("target.counts.counts", f"must hold 1 to {_MAX_COUNTS} entries, got {len(given)}")
            return _UNCHANGED
        counts: dict[tuple[int, int | None], int] = {}
        for place, each in enumerate(given):
            field, known = f"target.counts.counts[{place}]", len(wrong)
            key = (self._read_label(each.label, f"{field}.label"), self._read_group(each.group, f"{field}.group"))
            if each.count > MAX_ROWS:
                wrong.add(f"{field}.count", f"must be at most {MAX_ROWS}")
            if len(wrong) == known and key in counts:
                wrong.add(field, "names its class and group a second time")
            if len(wrong) == known:
                counts[key] = each.count
        if len({bool(each.group) for each in given}) > 1:
            problem = "entries with and without a group cannot be mixed; name a group in each, or in none"
            wrong.add("target.counts.counts", problem)
        return Counts(counts=counts)

    def _read_weights(self, target: augmentation_pb2.TargetWeights) -> TargetRule:
        dataset, wrong, before, field = self._dataset, self._wrong, len(self._wrong), "target.weights.weights"
        wrong.check_range("target.weights.total", target.total, 1, MAX_ROWS)
        if len(target.weights) > min(len(dataset.classes), _MAX_COUNTS):
            wrong.add(field, f"must hold at most one weight a class, got {len(target.weights)}")
            return _UNCHANGED
        weights = read_weights(target.weights, field, dataset.name, dataset.classes, wrong)
        if len(wrong) == before and not any(weights.values()):
            wrong.add(field, "must hold at least one weight above 0")
        return Weights(total=target.total, weights=weights)

    def _read_label(self, label: sampling_pb2.LabelRef, field: str) -> int:
        return read_label(label, field, self._dataset.name, self._dataset.classes, self._wrong, self._classes)

    def _read_group(self, name: str, field: str) -> int | None:
        if not name:
            return None
        if (group := self._groups.get(normal_name(name))) is not None:
            return group
        known = ", ".join(map(repr, self._dataset.groups[:12])) or "none"
        self._wrong.add(field, f"{self._dataset.name} has no group {name[:80]!r}; it has {known}", unknown=True)
        return None

    def _read_mode(self) -> RealMode:
        mode = self._request.real.mode or RealMode.ONCE
        if mode not in list(RealMode):
            self._wrong.add("real.mode", f"{mode} is not a RealRows.Mode")
            return RealMode.ONCE
        return RealMode(mode)

    def _read_mix(self) -> Mix:
        if not self._request.HasField("mix"):
            return Mix()
        mix = self._request.mix
        weights = {name: getattr(mix, name) for name in ("resampled", "transformed", "synthesised")}
        known = len(self._wrong)
        for name, weight in weights.items():
            self._wrong.check_weight(f"mix.{name}", weight)
        is_wrong = len(self._wrong) > known
        if not any(weights.values()):
            self._wrong.add("mix", "must hold at least one weight above 0; leave it out to draw rows again")
        cap = mix.max_synthetic_ratio if mix.HasField("max_synthetic_ratio") else None
        if cap is not None:
            self._wrong.check_weight("mix.max_synthetic_ratio", cap)
        return Mix() if is_wrong else Mix(**weights, max_synthetic_ratio=cap)

    def _read_policy(self) -> Policy:
        if not self._request.HasField("policy"):
            return self._settings.policy or safe_policy(self._dataset.name, self._dataset.shape)
        return read_policy(self._request.policy, "policy", self._wrong)

    def _read_synthesis(self) -> SynthesisSpec | None:
        """Read the synthesis; None, noted, when there is none, or no generator."""
        given, dataset, wrong = self._request.synthesis, self._dataset, self._wrong
        if not self._request.HasField("synthesis"):
            wrong.add("synthesis", "is needed, for mix.synthesised is above 0; name a generator in synthesis.model")
            return None
        attempts = given.attempts or _ATTEMPTS
        wrong.check_range("synthesis.attempts", attempts, 1, _MAX_ATTEMPTS)
        quantile, classifier = self._read_quantile(), self._read_classifier()
        confidence = given.min_confidence if given.HasField("min_confidence") else _CONFIDENCE if classifier else 0.0
        generator = self._find("generator", given.model, "synthesis.model")
        if generator is None:
            return None
        if not generator.model.labels:
            wrong.add("synthesis.model", f"{generator.model.key.name} is unconditional; name a conditional generator")
        return SynthesisSpec(
            generator=generator,
            classifier=classifier,
            parameters=read_parameters(given.parameters, "synthesis.parameters", generator.model, wrong),
            min_confidence=confidence,
            copy_quantile=quantile,
            attempts=attempts,
            generator_labels=class_labels(dataset, generator.model),
            classifier_labels=class_labels(dataset, classifier.model if classifier else None),
        )

    def _read_quantile(self) -> float:
        given, held_out = self._request.synthesis, held_out_split(self._dataset, self._split)
        field, quantile = "synthesis.copy_quantile", given.copy_quantile
        if not given.HasField("copy_quantile"):
            return _QUANTILE if held_out else 0.0
        self._wrong.check_range(field, quantile, 0, 0.5)
        if 0 < quantile <= 0.5 and held_out is None:
            self._wrong.add(field, f"must be 0: {self._dataset.name} has no other split to calibrate it on")
        return quantile

    def _read_classifier(self) -> PinnedModel | None:
        given, field = self._request.synthesis, "synthesis.min_confidence"
        confidence = given.min_confidence if given.HasField("min_confidence") else _CONFIDENCE
        self._wrong.check_range(field, confidence, 0, 1)
        if confidence == 0:
            return None
        if given.HasField("classifier"):
            return self._find("classifier", given.classifier, "synthesis.classifier")
        found = self._find_default("classifier")
        if found is None and given.HasField("min_confidence") and self._refusal is None:
            self._wrong.add(field, f"must be 0: no classifier of {self._dataset.name} is served; or name one")
        return found

    def _read_verification(self, mix: Mix) -> VerificationSpec:
        given, verifier = self._request.verification, None
        agreement = given.min_agreement if given.HasField("min_agreement") else _MIN_AGREEMENT
        rows = given.rows or _VERIFIED_ROWS
        self._wrong.check_range("verification.min_agreement", agreement, 0, 1)
        self._wrong.check_range("verification.rows", rows, 16, 4096)
        if mix.transformed and self._pins is None:
            if given.HasField("classifier"):
                verifier = self._find("verifier", given.classifier, "verification.classifier")
            else:
                verifier = self._find_default("verifier")
        return VerificationSpec(verifier=verifier, min_agreement=agreement, rows=rows)

    def _read_time_to_live(self) -> float:
        if not self._request.HasField("time_to_live"):
            return float(_DAY_S)
        given = self._request.time_to_live
        seconds = given.seconds + given.nanos / 1e9
        if not 0 < seconds <= _MAX_TTL_S:
            self._wrong.add("time_to_live", f"must be above 0 and at most 30 days, got {seconds:g} s")
        return seconds

    def _find(self, role: str, reference: model_pb2.ModelRef, field: str) -> PinnedModel | None:
        """Find the model of a reference in `field` of the request; None, with the reason noted, when there is none."""
        numerics = self._pins[role].numerics if self._pins and role in self._pins else ""
        try:
            entry = self._catalog.find(reference.name, reference.version, reference.digest)
            target, model = self._catalog.choose(entry, ROLES[role], digest=reference.digest, numerics=numerics)
        except InvalidRequest as error:
            self._wrong += [replace(each, field=each.field.replace("model", field, 1)) for each in error.violations]
            return None
        except (NotReady, Retired) as error:
            self._refusal = self._refusal or error
            return None
        if role != "transformer" and model.sample_dims != self._dataset.shape:
            theirs, ours = ("×".join(map(str, each)) for each in (model.sample_dims, self._dataset.shape))
            kind = "texts" if model.is_text else f"{'images' if model.is_image else 'vectors'} of {theirs}"
            message = f"{model.key.name}, the {role}, is for {kind}, and {self._dataset.name} has {ours}"
            self._refusal = self._refusal or PlanRefused(f"{message}; name a {role} of that shape")
        return PinnedModel(role=role, target=target, model=model)

    def _find_default(self, role: str) -> PinnedModel | None:
        """Find the classifier that configuration names; None, with nothing noted, when it is not served."""
        name = self._settings.classifier
        if not name or not any(entry.name == name for entry in self._catalog.entries()):
            return None
        return self._find(role, model_pb2.ModelRef(name=name), role)

    def _find_transformer(self) -> PinnedModel | None:
        """Find the model that transforms images; None, with the reason noted, when none is served."""
        if self._pins and (pin := self._pins.get("transformer")):
            return self._find("transformer", pin.model, "transformer")
        if entry := self._catalog.transformer():
            reference = model_pb2.ModelRef(name=entry.name, version=entry.version)
            return self._find("transformer", reference, "transformer")
        try:
            refusal: FountServiceError = not_ready(self._catalog.find(TRANSFORMER))
        except UnknownName:
            refusal = PlanRefused(NO_TRANSFORMER)
        except NotReady as error:
            refusal = error
        self._refusal = self._refusal or refusal
        return None

    def _check_allocation(self, allocation: Allocation, synthesis: SynthesisSpec | None) -> None:
        """Check that the target can be reached, and that models know every class they make or read."""
        if allocation.shortages:
            self._add_shortages(allocation.shortages)
            return
        rows = sum(each.count for each in allocation.strata)
        if not 0 < rows <= MAX_ROWS:
            self._wrong.add("target", f"must come to 1 to {MAX_ROWS} rows, and comes to {rows}")
        classes = allocation.labels_of(Source.SYNTHESISED)
        if not (classes and synthesis):
            return
        needed = [("synthesis.classifier", synthesis.classifier, synthesis.classifier_labels)]
        if synthesis.generator.model.labels:  # an unconditional one is refused for that
            needed.insert(0, ("synthesis.model", synthesis.generator, synthesis.generator_labels))
        for field, pinned, labels in needed:
            if pinned is None:
                continue
            known, listed = pinned.model.labels, label_list(pinned.model.labels) or "no labels"
            if unknown := [self._dataset.classes[k] for k in sorted(classes) if labels[k] >= len(known)]:
                names = ", ".join(map(repr, unknown[:12]))
                self._wrong.add(field, f"{pinned.model.key.name} does not know {names}; it knows {listed}")

    def _add_shortages(self, shortages: Sequence[Shortage]) -> None:
        """Note what contradicts the data: one violation for all classes and groups of a field."""
        found: dict[tuple[str, bool], list[str]] = {}
        for each in shortages:
            owner = f"class {self._dataset.classes[each.label]!r}"
            if each.group is not None and self._dataset.groups:
                owner += f" of group {self._dataset.groups[each.group]!r}"
            text = f"{owner} has {each.available} rows and would have {each.target}"
            found.setdefault((each.field, not each.available), []).append(text)
        for (field, is_empty), texts in found.items():
            remedy = "give mix.synthesised a weight to have them made by a generator, or leave it out"
            if not is_empty:
                or_factor = ", or a factor of at least 1" if field == "target.factor" else ""
                remedy = f"set target.subsample to leave rows out{or_factor}"
            more = f", … {len(texts)} in all" if len(texts) > _LISTED_SHORTAGES else ""
            self._wrong.add(field, f"{', '.join(texts[:_LISTED_SHORTAGES])}{more}; {remedy}")
