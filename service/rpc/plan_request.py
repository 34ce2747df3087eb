"""Read plan specifications from requests and tickets: every field is checked, and every wrong one is reported.

A PlanDatasetRequest enters, from a client or from a ticket that pins its models; a `PlanSpec` leaves, with names
resolved, models found, everything left open filled in, and rows allocated.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence

import numpy as np

from fount.augmentation.shards import MAX_SHARDS
from fount.names import indices_of, normal_name
from fount.readers import Dataset, DatasetSplit
from fount.transforms import Policy, safe_policy
from fount.v1 import augmentation_pb2, sampling_pb2
from service.augmentation.permutation import MAX_ROWS
from service.augmentation.plan_spec import SECTIONS, GenerationSpec, PlanSpec, VerificationSpec
from service.augmentation.slots import GENERATED, RealMode, Source
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
from service.catalog import Catalog
from service.datasets import DatasetSettings
from service.errors import UnknownName, Violation
from service.rpc.fields import Violations, label_list, raise_violations, read_label, read_policy, read_weights
from service.rpc.generation_request import GENERATING_ROLES, GenerationReader
from service.rpc.plan_models import ModelFinder, Pins

__all__ = ["read_plan_request"]

_DAY_S = 86400
_MAX_TTL_S = 30 * _DAY_S
_MIN_AGREEMENT, _VERIFIED_ROWS = 0.9, 256  # defaults, as those below
_MAX_COUNTS = 4096  # entries of a target: a ticket holds them
_MAX_FACTOR = 1000.0
_LISTED_SHORTAGES = 3
_UNCHANGED = Factor(factor=1.0, by_group=False)


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
        self._classes, self._groups = indices_of(dataset.classes), indices_of(dataset.groups)
        self._wrong = Violations()
        self._models = ModelFinder(dataset, settings.classifier, catalog, pins, self._wrong)

    async def read(self) -> PlanSpec:
        """Read all fields, allocate rows, and raise everything that is wrong; see `read_plan_request`."""
        request, dataset, split = self._request, self._dataset, self._split
        target, mix = self._read_target(), self._read_mix()
        can_allocate = not self._wrong
        mode, policy = self._read_mode(), self._read_policy()
        generation = self._read_generation(mix)
        verification = self._read_verification(mix)
        shards, time_to_live_s = request.shards or 1, self._read_time_to_live()
        self._wrong.check_range("shards", shards, 1, MAX_SHARDS)
        cells, allocation, transformer = np.zeros((0, 1), np.int64), Allocation(), None
        if can_allocate:
            transformer = self._models.find_transformer() if mix.transformed else None
            groups, subsample = len(dataset.groups), request.target.subsample
            cells = await asyncio.to_thread(count_cells, split.labels, split.groups, len(dataset.classes), groups)
            allocation = await asyncio.to_thread(
                allocate, cells, target, group_count=groups, mix=mix, mode=mode, subsample=subsample
            )
            self._check_allocation(allocation, generation)
        raise_violations(self._wrong)
        if self._models.refusal:
            raise self._models.refusal
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
            generation=generation,
            verification=verification,
            shards=shards,
            time_to_live_s=time_to_live_s,
        )

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
        names = ("resampled", "transformed", "synthesised", "translated", "reconstructed")
        weights = {name: getattr(mix, name) for name in names}
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

    def _read_generation(self, mix: Mix) -> dict[Source, GenerationSpec]:
        """Read how each source of the mix that models generate is generated; what is wrong is noted, and left out."""
        reader = GenerationReader(self._request, self._dataset, self._split, self._models, self._wrong)
        sources = [
            source for source in GENERATED if mix.weights[source] and self._models.is_needed(GENERATING_ROLES[source])
        ]
        return {source: each for source in sources if (each := reader.read(source))}

    def _read_verification(self, mix: Mix) -> VerificationSpec:
        given, verifier = self._request.verification, None
        agreement = given.min_agreement if given.HasField("min_agreement") else _MIN_AGREEMENT
        rows = given.rows or _VERIFIED_ROWS
        self._wrong.check_range("verification.min_agreement", agreement, 0, 1)
        self._wrong.check_range("verification.rows", rows, 16, 4096)
        if mix.transformed and self._models.is_needed("verifier"):
            if given.HasField("classifier"):
                verifier = self._models.find("verifier", given.classifier, "verification.classifier")
            else:
                verifier = self._models.find_default("verifier")
        return VerificationSpec(verifier=verifier, min_agreement=agreement, rows=rows)

    def _read_time_to_live(self) -> float:
        if not self._request.HasField("time_to_live"):
            return float(_DAY_S)
        given = self._request.time_to_live
        seconds = given.seconds + given.nanos / 1e9
        if not 0 < seconds <= _MAX_TTL_S:
            self._wrong.add("time_to_live", f"must be above 0 and at most 30 days, got {seconds:g} s")
        return seconds

    def _check_allocation(self, allocation: Allocation, generation: Mapping[Source, GenerationSpec]) -> None:
        """Check that the target can be reached, and that models know every class they make or read."""
        if allocation.shortages:
            self._add_shortages(allocation.shortages)
            return
        rows = sum(each.count for each in allocation.strata)
        if not 0 < rows <= MAX_ROWS:
            self._wrong.add("target", f"must come to 1 to {MAX_ROWS} rows, and comes to {rows}")
        for source, spec in generation.items():
            self._check_classes(spec, allocation.labels_of(source))

    def _check_classes(self, spec: GenerationSpec, classes: set[int]) -> None:
        """Check that models know the classes of the rows they generate or classify."""
        section = SECTIONS[spec.source]
        of_model = f"{section}.label" if spec.source is Source.TRANSLATED else f"{section}.model"
        for field, pinned, labels in (
            (of_model, spec.model, spec.labels),
            (f"{section}.classifier", spec.classifier, spec.classifier_labels),
        ):
            if pinned is None or labels is None:
                continue
            known, listed = pinned.model.labels, label_list(pinned.model.labels) or "no labels"
            if unknown := [self._dataset.classes[k] for k in sorted(classes) if labels[k] >= len(known)]:
                names = ", ".join(map(repr, unknown[:12]))
                remedy = "; name one of these for all rows" if field == "translation.label" else ""
                self._wrong.add(field, f"{pinned.model.key.name} does not know {names}; it knows {listed}{remedy}")

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
